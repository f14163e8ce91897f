"""`balanced_batches`: the usual cuts fail where they are uneven, each with its message; other right cuts pass."""

import random

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab.grading import batched, uneven

by_value(__name__)
NAME = "balanced_batches"
balanced_batches = solutions(NAME)[NAME]


def as_it_comes(lengths, n, width=None, speeds=None):
    return [list(range(len(lengths)))[rank::n] for rank in range(n)]


def sorted_and_dealt(lengths, n, width=None, speeds=None):
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    return [order[rank::n] for rank in range(n)]


def not_sorted(lengths, n, width=None, speeds=None):
    """To who has least, in the order in which they come; of the longest, some come late."""
    groups, loads = [[] for _ in range(n)], [0] * n
    for item, length in enumerate(lengths):
        rank = loads.index(min(loads))
        groups[rank].append(item)
        loads[rank] += length
    return groups


def forgets_the_rest(lengths, n, width=None, speeds=None):
    """Fills each rank up to the mean, and leaves what fits nowhere."""
    groups, loads = [[] for _ in range(n)], [0] * n
    for item, length in enumerate(lengths):
        rank = next((r for r in range(n) if loads[r] + length <= sum(lengths) / n), None)
        if rank is not None:
            groups[rank].append(item)
            loads[rank] += length
    return groups


def by_tokens(lengths, n, width=None, speeds=None):
    return balanced_batches(lengths, n, None, speeds)


def by_work(lengths, n, width=None, speeds=None):
    return balanced_batches(lengths, n, width)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (forgets_the_rest, 0, r"sequence \d+ is on 0 ranks, expected one\n.*another gradient"),
    (as_it_comes, 1, r"ranks: the ranks have .* longer than the lower bound, at most 3.0 %\n.*no equal loads"),
    (sorted_and_dealt, 1, r"longer than the lower bound.*\n.*the longest of each turn"),
    (
        not_sorted,
        1,
        r"longer than the lower bound.*\n.*(that comes late|no equal loads)",
    ),  # numbers may be equal by chance
    (by_tokens, 2, r"work for a width of .* longer than the lower bound.*\n.*The tokens are even and the work is not"),
    (by_work, 3, r"speeds .* longer than the lower bound.*\n.*a rank of half the speed"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def multifit(lengths, n, width=None, speeds=None):
    """Not a cheat: the shortest time for which the first rank with room always has some (Coffman et al. 1978)."""
    costs = [length * (1 + (length + 1) / (12 * width)) if width else length for length in lengths]
    speeds, order = speeds or [1.0] * n, sorted(range(len(lengths)), key=lambda item: -costs[item])

    def within(time):
        groups, room = [[] for _ in range(n)], [time * speed for speed in speeds]
        for item in order:
            rank = next((r for r in range(n) if costs[item] <= room[r]), None)
            if rank is None:
                return None
            groups[rank].append(item)
            room[rank] -= costs[item]
        return groups

    low, high = 0.0, sum(costs) / min(speeds)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return within(high)


def test_another_right_answer_passes():
    assert_passes(NAME, multifit)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, by_tokens, "The tokens are even")
    assert_ends_a_step(NAME, 2, by_work, "a rank of half the speed")


def test_who_has_least_now_is_no_answer_to_speeds():
    """A slow rank that has nothing yet gets the longest sequence: neither loads nor tokens are even then."""

    def least_now(lengths, n, width=None, speeds=None):
        costs = [length * (1 + (length + 1) / (12 * width)) if width else length for length in lengths]
        groups, loads, speeds = [[] for _ in range(n)], [0.0] * n, speeds or [1.0] * n
        for item in sorted(range(len(lengths)), key=lambda one: -costs[one]):
            rank = min(range(n), key=lambda one: loads[one] / speeds[one])
            groups[rank].append(item)
            loads[rank] += costs[item]
        return groups

    assert_found_out(NAME, least_now, 3, r"speeds .* longer than the lower bound.*\n.*Not who has least now")


def test_what_is_no_cut_is_refused():
    def too_many(lengths, n, width=None, speeds=None):
        return [[*group, len(lengths)] for group in balanced_batches(lengths, n)]

    assert_found_out(NAME, lambda lengths, n, width=None, speeds=None: [0] * n, 0, "a list of 1 lists")
    assert_found_out(NAME, lambda lengths, n, width=None, speeds=None: [[[0]]] * n, 0, "a list of 1 lists of numbers")
    assert_found_out(NAME, too_many, 0, r"there is no sequence \d+\n.*counted from 0")
    assert_found_out(
        NAME,
        lambda lengths, n, width=None, speeds=None: [range(3)] * n,
        1,
        "a list of 2, an object of class range first",
    )


def test_the_limit_can_always_be_kept_and_no_mistake_keeps_it():
    """Many draws: the solution stays below 2 %, each mistake is above 3 % in at least one of a test's batches."""
    dice = random.Random(5)
    for _ in range(25):
        for wide, slow, mistakes in (
            (False, False, (as_it_comes, sorted_and_dealt, not_sorted)),
            (True, False, (by_tokens,)),
            (True, True, (by_work,)),
        ):
            problems = [batched.Problem(*call) for call in uneven.batches(dice, (2, 4, 8, 8), wide, slow)]
            assert max(one.above(balanced_batches(*one), one.width, one.speeds) for one in problems) < 0.02
            for mistake in mistakes:
                assert max(one.above(mistake(*one), one.width, one.speeds) for one in problems) > 0.03, mistake
