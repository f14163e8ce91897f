"""The search against exhaustive search, with a toy model of costs and with the planner's own; a wrong bound shows."""

import pytest
from toy import SHAPE, machine, toy

from parallel_lab.planner.search import NEAR, NothingFits, search
from parallel_lab.planner.space import Space, divisors

SMALL = Space(microbatch=(1, 2), chunks=(2,), schedules=("1f1b", "interleaved"))


def every_scheme(space, shape, cluster, batch):
    return [
        scheme
        for family in space.families(shape, cluster, batch)
        for scheme in space.members(family, shape, cluster, batch)
    ]


def exhaustive(space, shape, cluster, batch, model):
    """All that fit, fastest first."""
    found = []
    for scheme in every_scheme(space, shape, cluster, batch):
        one = model.estimate(shape, cluster, scheme, batch)
        if one.fits:
            found.append(one)
    return sorted(found, key=lambda one: one.step_s)


def disagrees(model, cluster, batch=32):
    """Whether bounded search and exhaustive search differ."""
    all_of_them = exhaustive(SMALL, SHAPE, cluster, batch, model)
    found = search(SHAPE, cluster, batch, space=SMALL, model=model)
    within = [one for one in all_of_them if one.step_s <= (1 + NEAR) * all_of_them[0].step_s]
    return {one.scheme for one in found.near} != {one.scheme for one in within} or (
        found.best.step_s != all_of_them[0].step_s
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gb", [30, 80])
def test_finds_what_exhaustive_search_finds(seed, gb):
    assert not disagrees(toy(seed), machine(16, gb))


def test_a_bound_that_is_none_loses_the_optimum():
    """The broken variant: bounds of 1.25 times the work are not below the step, and the comparison sees it."""
    assert any(disagrees(toy(seed, looser=0.8), machine(16)) for seed in range(5))


def test_leaves_most_families_closed_and_says_how_many():
    found = search(SHAPE, machine(64), 64, model=toy(0))
    assert found.opened < found.families and found.priced < len(every_scheme(Space(), SHAPE, machine(64), 64))
    assert found.near[0] is found.best and found.best.fits


def test_members_have_the_axes_and_products_of_their_family_and_none_comes_twice():
    cluster = machine(16)
    for family in SMALL.families(SHAPE, cluster, 32):
        for one in SMALL.members(family, SHAPE, cluster, 32):
            for name in ("pp", "dp", "cp", "tp", "ep", "microbatch", "recompute", "precision"):
                assert getattr(one, name) == getattr(family, name)
    found = every_scheme(SMALL, SHAPE, cluster, 32)
    assert len(set(found)) == len(found) and all(one.world == 16 for one in found)


def test_axes_can_be_fixed():
    cluster = machine(16)
    found = every_scheme(Space(pp=(2,), tp=(4, 3), cp=(1,)), SHAPE, cluster, 32)
    assert {(one.pp, one.tp, one.cp, one.dp) for one in found} == {(2, 4, 1, 2)}
    assert divisors(12) == (1, 2, 3, 4, 6, 12)


def test_ties_are_those_within_a_hundredth_and_runners_up_are_other_layouts():
    found = search(SHAPE, machine(16), 32, space=SMALL, model=toy(3))
    assert all(one.step_s <= 1.01 * found.best.step_s for one in found.ties)
    layouts = [(one.scheme.pp, one.scheme.dp, one.scheme.cp, one.scheme.tp) for one in found.runners_up(9)]
    assert len(set(layouts)) == len(layouts)


def test_progress_is_told():
    told = []
    search(SHAPE, machine(16), 32, space=SMALL, model=toy(0), progress=lambda *now: told.append(now))
    assert [now[0] for now in told] == list(range(1, len(told) + 1)) and told[-1][2] > 0


def test_where_nothing_fits_it_says_the_least_and_what_to_change():
    cluster, model = machine(8, gb=1.0), toy(0)
    with pytest.raises(NothingFits, match=r"least memory found is .* What would fit: .*--gpus \d+") as caught:
        search(SHAPE, cluster, 32, space=SMALL, model=model)
    needed = [model.estimate(SHAPE, cluster, one, 32).memory.value for one in every_scheme(SMALL, SHAPE, cluster, 32)]
    assert caught.value.least_bytes == min(needed)


def test_where_nothing_divides_it_says_so():
    with pytest.raises(NothingFits, match="more divisors"):
        search(SHAPE, machine(7), 3, space=Space(microbatch=(2,)), model=toy(0))
