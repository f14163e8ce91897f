"""Schemes in words, what changes would do, and how the best scheme moves with the machine: with toy costs."""

import pytest
from toy import SHAPE, machine, toy

from parallel_lab.planner.remedies import remedies, some_fit
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.search import search
from parallel_lab.planner.sensitivity import sensitivity, text
from parallel_lab.planner.space import Space
from parallel_lab.planner.words import changes, neighbors, reasons, trade, words

CHEAPEST = ["as it is", "memory x 2", "batch / 2"]
SMALL = Space(microbatch=(1, 2), chunks=(2,), schedules=("1f1b", "interleaved"))


def fits(shape, cluster, scheme, batch):
    return toy(0).estimate(shape, cluster, scheme, batch).fits


def test_a_scheme_in_words():
    scheme = Scheme(pp=4, dp=8, tp=8, zero=3, shard=2, schedule="interleaved", chunks=2, offload="optimizer")
    said = "pp=4 dp=8 tp=8, ZeRO-3 in groups of 2, interleaved x 2, microbatch 1, recompute none, bf16"
    assert words(scheme) == f"{said}, optimizer in host memory"
    assert words(Scheme()) == "one rank, microbatch 1, recompute none, bf16"
    assert words(Scheme(tp=2, sequence_parallel=False)).endswith("no sequence parallelism")
    assert changes(Scheme(tp=2), Scheme(dp=2)) == "dp 1 -> 2, tp 2 -> 1"


def test_neighbors_keep_the_world_and_change_one_choice():
    scheme = Scheme(pp=2, dp=4, tp=2, zero=1)
    found = list(neighbors(scheme))
    assert {label for label, _ in found} == {"tp", "pp", "cp", "ep", "ZeRO", "recompute", "schedule", "microbatch"}
    assert all(one.world == 16 and one != scheme for _, one in found)
    assert all(one.schedule == "1f1b" for _, one in found if one.pp == 1)


def test_reasons_say_what_is_slower_and_what_does_not_fit():
    cluster, model = machine(16, gb=40), toy(1)
    best = search(SHAPE, cluster, 32, space=SMALL, model=model).best
    said = reasons(best, SHAPE, cluster, 32, model.estimate)
    assert any("% time" in row for row in said) and len(said) >= 3
    alone = machine(1, gb=10)
    one = model.estimate(SHAPE, alone, Scheme(), 32)
    assert any("does not fit" in row for row in reasons(one, SHAPE, alone, 32, model.estimate))


def test_a_trade_names_the_parts_that_moved():
    cluster, model = machine(16), toy(2)
    one, other = (model.estimate(SHAPE, cluster, Scheme(pp=pp, dp=16 // pp), 32) for pp in (1, 4))
    assert "memory" in trade(one, other) and "bubble +" in trade(one, other)
    assert trade(one, one) == "+0.0 % time"


def test_sensitivity_searches_again_and_prices_the_old_scheme_there():
    cluster, model = machine(16, gb=40), toy(4)
    rows = sensitivity(SHAPE, cluster, 32, space=SMALL, model=model, changes=CHEAPEST)
    assert [row.change for row in rows] == CHEAPEST
    assert rows[0].per_sequence == 1 and rows[0].kept.step_s == rows[0].found.best.step_s
    for row in rows:
        if row.found and row.kept:
            assert row.found.best.step_s <= row.kept.step_s
    roomier = next(row for row in rows if row.change == "memory x 2")
    assert roomier.per_sequence <= 1
    shown = text(rows)
    assert "the same" in shown and shown.count("\n") == len(rows)


def test_sensitivity_says_where_nothing_fits():
    cluster, model = machine(8, gb=8), toy(4)
    rows = sensitivity(SHAPE, cluster, 32, space=SMALL, model=model, changes=["as it is", "memory / 2"])
    assert rows[1].found is None and "nothing fits" in text(rows)


def test_remedies_are_changes_with_which_some_scheme_fits():
    cluster = machine(8, gb=6)
    assert not some_fit(SHAPE, cluster, 32, SMALL, fits)
    said = " ".join(remedies(SHAPE, cluster, 32, SMALL, fits))
    assert "--gpus" in said and "times the memory" in said
    hopeless = machine(1, gb=0.001)
    assert not list(remedies(SHAPE, hopeless, 1, SMALL, fits))


@pytest.mark.parametrize("gb", [2, 6])
def test_with_the_optimizer_elsewhere(gb):
    said = " ".join(remedies(SHAPE, machine(8, gb=gb), 32, SMALL, fits))
    assert ("--offload" in said) == (gb == 6)
