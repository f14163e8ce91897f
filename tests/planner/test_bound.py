"""Bounds of time and memory against the planner's own steps, and the search against exhaustive search with them."""

import random
from dataclasses import replace

import pytest

from parallel_lab.planner.bound import family_floor_s, group_floor_bytes, group_floor_s, scheme_floor_s
from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.constants import constants
from parallel_lab.planner.estimate import estimate
from parallel_lab.planner.models import model
from parallel_lab.planner.search import NEAR, search
from parallel_lab.planner.space import Space

DENSE = replace(model("llama3-8b"), layers=12, seq=2048)
UNEVEN = replace(model("gpt3-6.7b"), layers=10, tied=True)
MIXTURE = replace(model("mixtral-8x7b"), layers=8, seq=1024)
EVERY = Space(
    schedules=("gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "zb_v", "dualpipe_v"),
    offload=("none", "optimizer"),
    sequence_parallel=(True, False),
)
JOBS = [
    (DENSE, "h100-ib", 16, 32, EVERY),
    (UNEVEN, "a100-jz", 16, 24, EVERY),
    (MIXTURE, "h100-ib", 16, 32, EVERY),
    (DENSE, "v100-dgx2h", 32, 64, replace(EVERY, precision=("fp16",))),
    (DENSE, "h100-ib", 16, 32, replace(EVERY, states="fsdp", precision=("bf16", "fp8"))),
]


@pytest.mark.parametrize(("shape", "name", "gpus", "batch", "space"), JOBS)
def test_no_step_and_no_memory_lies_below_its_bound(shape, name, gpus, batch, space):
    """A sample of families, and of each all schemes."""
    machine, dice = cluster(name, gpus=gpus), random.Random(21)
    families = list(space.families(shape, machine, batch))
    tight = 0.0
    for family in dice.sample(families, 14):
        below_s = family_floor_s(shape, machine, family, batch, constants())
        for leanest, group in space.groups(family, shape, machine, batch):
            least = group_floor_bytes(shape, machine, leanest, batch)
            plain = replace(leanest, zero=0, shard=None, offload="none")
            group_s = group_floor_s(estimate(shape, machine, plain, batch))
            for scheme in dice.sample(group, min(6, len(group))):
                one = estimate(shape, machine, scheme, batch)
                assert scheme_floor_s(one) <= one.step_s
                assert below_s <= one.step_s and group_s <= one.step_s
                assert least <= one.memory.value
                tight = max(tight, scheme_floor_s(one) / one.step_s)
    assert tight > 0.95, "a bound of nothing would hold, too"


SMALL = Space(microbatch=(1, 2), chunks=(2,))


def summary(estimates):
    return {one.scheme: one.step_s for one in estimates}


@pytest.mark.parametrize(("gb", "gpus"), [(80, 8), (20, 8), (12, 16)])
def test_the_search_finds_what_exhaustive_search_finds(gb, gpus):
    machine = cluster("h100-ib", gpus=gpus)
    machine = replace(machine, accelerator=replace(machine.accelerator, memory_bytes=gb * 1e9))
    batch, shape = 16, replace(DENSE, layers=8)
    every = [
        estimate(shape, machine, scheme, batch)
        for family in SMALL.families(shape, machine, batch)
        for scheme in SMALL.members(family, shape, machine, batch)
    ]
    fitting = sorted((one for one in every if one.fits), key=lambda one: one.step_s)
    found = search(shape, machine, batch, space=SMALL)
    assert found.best.step_s == fitting[0].step_s
    limit_s = (1 + NEAR) * fitting[0].step_s
    assert summary(found.near) == summary(one for one in fitting if one.step_s <= limit_s)
    assert found.priced < len(every) / 2


def test_other_constants_are_used():
    machine, slow = cluster("h100-ib", gpus=8), constants().but(product_share=0.4)
    shape, space = replace(DENSE, layers=8), replace(SMALL, pp=(1,))
    usual, slower = (search(shape, machine, 16, space=space, constants=some) for some in (None, slow))
    assert slower.best.step_s > usual.best.step_s
