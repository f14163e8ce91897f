"""Which ranks form which groups, and what a layout refuses, without a rank."""

import dataclasses
import itertools

import pytest

from parallel_lab.hybrid import Layout
from parallel_lab.hybrid.layout import AXES, NAMES
from parallel_lab.model import GPTConfig

CONFIG = GPTConfig(heads=12, width=24, layers=2, seq=12)
EXPERTS = dataclasses.replace(CONFIG, experts=4, active_experts=2)


def test_neighbors_share_tensors_and_stages_are_far_apart():
    layout = Layout(pp=2, dp=2, tp=2)
    assert layout.world == 8
    assert layout.rows("tp") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.rows("dp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.rows("pp") == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_experts_are_cut_out_of_the_data_ranks():
    layout = Layout(pp=1, dp=4, cp=2, tp=2, ep=4)
    assert (layout.world, layout.data, layout.edp) == (16, 8, 2)
    assert layout.rows("dp_cp") == [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]]
    assert layout.rows("ep") == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]]
    assert layout.rows("edp") == [[0, 8], [1, 9], [2, 10], [3, 11], [4, 12], [5, 13], [6, 14], [7, 15]]


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2, 4), (1, 3, 2, 1, 3), (3, 1, 1, 2, 1)])
def test_every_rank_is_in_one_group_of_each_axis_at_its_place(sizes):
    layout = Layout(*sizes)
    for axis in NAMES:
        assert sorted(itertools.chain(*layout.rows(axis))) == list(range(layout.world))
        assert all(row[layout.place(rank)[axis]] == rank for row in layout.rows(axis) for rank in row)
    places = {tuple(layout.place(rank)[axis] for axis in AXES) for rank in range(layout.world)}
    assert len(places) == layout.world


WRONG = {
    "pp=2 x dp=2 x cp=1 x tp=2 makes 8 ranks, and there are 6": (Layout(pp=2, dp=2, tp=2), CONFIG, {"world": 6}),
    r"makes 4 ranks, and there are 8 \(ep=2 is no factor: it re-cuts the 4 data ranks\)": (
        Layout(dp=4, ep=2),
        EXPERTS,
        {"world": 8},
    ),
    "2 blocks, an embedding and a head make at most 4 stages, and pp=5 needs 5": (Layout(pp=5), CONFIG, {}),
    "12 heads do not divide by tp=5": (Layout(tp=5), CONFIG, {}),
    "ep=2, and this model has no experts": (Layout(dp=2, ep=2), CONFIG, {}),
    "4 experts do not divide by ep=3. Choose a divisor of 4": (Layout(dp=3, ep=3), EXPERTS, {}),
    "a sequence of 10 tokens does not divide into 2 cp = 4 parts": (Layout(cp=2), CONFIG, {"seq": 10}),
    "ulysses gives each of cp=5 ranks whole heads": (Layout(cp=5), CONFIG, {"context": "ulysses"}),
    "context='rings': expected ring or ulysses": (Layout(), CONFIG, {"context": "rings"}),
    "a batch of 3 sequences, and dp=2 times 2 microbatches need one each: at least 4": (
        Layout(dp=2),
        CONFIG,
        {"batch": 3, "microbatches": 2},
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_trained_is_said(message):
    layout, config, options = WRONG[message]
    with pytest.raises(ValueError, match=message):
        layout.check(config, **{"world": layout.world} | options)


def test_sizes():
    with pytest.raises(ValueError, match="ep=3 does not divide the dp=2 x cp=2 = 4 data ranks"):
        Layout(dp=2, cp=2, ep=3)
    with pytest.raises(ValueError, match="tp=0: expected at least 1"):
        Layout(tp=0)
    with pytest.raises(TypeError, match=r"dp=2\.0 \(float\): expected a whole number"):
        Layout(dp=2.0)  # type: ignore[arg-type]
