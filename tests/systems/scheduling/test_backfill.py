"""Backfilling: promises that are kept, what they are worth, and limits that are wrong."""

import math

import pytest

from parallel_lab.systems.scheduling import (
    FIFO,
    SKIPPING,
    Conservative,
    Easy,
    Job,
    Profile,
    measures,
    promise,
    simulate,
    trace,
)

# A runs on 3 of 4 GPUs until 60. B needs all 4, so it is promised 60. C needs 1.
RUNNING, HEAD = Job("A", 0, 3, 60, limit_s=120.0), Job("B", 1, 4, 60)
BOTH = pytest.mark.parametrize("policy", [Easy(), Conservative()], ids=lambda policy: policy.name)


@BOTH
@pytest.mark.parametrize(("limit_s", "starts_s"), [(100.0, 2.0), (118.0, 2.0), (118.5, 120.0), (None, 2.0)])
def test_backfilling_lives_from_limits(policy, limit_s, starts_s):
    """C is let in if by its limit it is over before the head is promised its start, which is by A's limit 120 s."""
    schedule = simulate([RUNNING, HEAD, Job("C", 2, 1, 40, limit_s=limit_s)], 4, policy)
    starts = measures.first_starts_s(schedule)
    assert starts["C"] == starts_s and starts["B"] == 60  # A ends before its limit


def test_what_the_head_leaves_free_may_be_held_beyond_its_start():
    """The head needs 3 of 4 GPUs: one job of one GPU may run on, a second one may not."""
    jobs = [Job("A", 0, 3, 60), Job("B", 1, 3, 60), Job("C", 2, 1, 500), Job("D", 3, 1, 500)]
    starts = measures.first_starts_s(simulate(jobs, 4, Easy()))
    assert starts == {"A": 0, "B": 60, "C": 2, "D": 120}
    assert promise(3, 1, [(60, 3)]) == (60, 1) and promise(5, 1, [(60, 3)]) == (math.inf, 0)


def test_all_whose_limits_end_when_the_head_starts_leave_their_gpus():
    """A and B end together, and the head needs one of them: the other's GPUs may be held beyond its start."""
    assert promise(3, 1, [(60, 2), (60, 2), (90, 8)]) == (60, 2)
    jobs = [Job("A", 0, 2, 60), Job("B", 0, 2, 60), Job("head", 1, 3, 60), Job("C", 2, 1, 500), Job("D", 2, 1, 500)]
    starts = measures.first_starts_s(simulate(jobs, 5, Easy()))
    assert starts == {"A": 0, "B": 0, "head": 60, "C": 2, "D": 60}


@pytest.mark.parametrize("most", [1.0, 5.0])
@pytest.mark.parametrize("seed", [0, 4, 6])
def test_nobody_waits_who_would_not_delay_the_head(mixed, seed, most):
    """Whoever fits and is not started by EASY would delay the head; limits of whole seconds often end together."""
    refused = []

    class Watched(Easy):
        def choose(self, now_s, waiting, running, free):
            decision = super().choose(now_s, waiting, running, free)
            left = [one for one in waiting if one not in decision.gpus]
            rest = free - sum(decision.gpus.values())
            ends = [(one.latest_end_s, one.gpus) for one in running]
            ends += [(now_s + one.limit_left_s, one.job.gpus) for one in decision.gpus]
            for one in [one for one in left[1:] if one.job.gpus <= rest]:
                head, with_it = left[0].job.gpus, [*ends, (now_s + one.limit_left_s, one.job.gpus)]
                assert promise(head, rest - one.job.gpus, with_it)[0] > promise(head, rest, ends)[0]
                refused.append(one)
            return decision

    simulate(mixed(seed, most=most), 8, Watched())
    assert refused


def promised(jobs, gpus, policy):
    """What the head of the line is promised at each event, by its name; and the schedule."""
    told: dict[str, list[float]] = {}

    class Watched:
        name = policy.name

        def choose(self, now_s, waiting, running, free):
            decision = policy.choose(now_s, waiting, running, free)
            left = [one for one in waiting if one not in decision.gpus]
            if left:
                started = [(now_s + one.limit_left_s, one.job.gpus) for one in decision.gpus]
                ends = started + [(one.latest_end_s, one.gpus) for one in running]
                rest = free - sum(decision.gpus.values())
                due_s = now_s if left[0].job.gpus <= rest else promise(left[0].job.gpus, rest, ends)[0]
                told.setdefault(left[0].job.name, []).append(due_s)
            return decision

    return told, simulate(jobs, gpus, Watched())


@BOTH
@pytest.mark.parametrize("most", [1.0, 5.0])
def test_a_promise_to_the_head_is_kept(mixed, policy, most):
    """Also where jobs end before their limits: the head is never later than what it was told at any time."""
    for seed in range(4):
        told, schedule = promised(mixed(seed, most=most), 8, policy)
        starts = measures.first_starts_s(schedule)
        assert told
        for name, dues_s in told.items():
            assert starts[name] <= min(dues_s)
            assert dues_s == sorted(dues_s, reverse=True)


def test_a_policy_without_promises_breaks_them(mixed):
    told, schedule = promised(mixed(0), 8, SKIPPING)
    starts = measures.first_starts_s(schedule)
    assert any(starts[name] > min(dues_s) for name, dues_s in told.items())


@pytest.mark.parametrize("seed", range(4))
def test_with_exact_limits_conservative_starts_nobody_later_than_fifo(mixed, seed):
    jobs = mixed(seed)
    ours, fifo = (measures.first_starts_s(simulate(jobs, 8, policy)) for policy in (Conservative(), FIFO))
    assert all(ours[name] <= fifo[name] for name in fifo) and ours != fifo


@pytest.mark.parametrize("most", [1.0, 5.0])
def test_promises_behind_the_head_get_later_only_where_limits_are_wrong(mixed, most):
    told: dict[str, float] = {}
    later = []

    class Watched(Conservative):
        def choose(self, now_s, waiting, running, free):
            profile = Profile(now_s, free, [(one.latest_end_s, one.gpus) for one in running])
            for one in waiting:
                due_s = profile.promised(one.job.gpus, one.limit_left_s)
                later.append(due_s > told.get(one.job.name, math.inf))
                told[one.job.name] = due_s
            return super().choose(now_s, waiting, running, free)

    simulate(mixed(0, most=most), 8, Watched())
    assert any(later) == (most > 1)


def test_easy_may_start_somebody_later_than_fifo(mixed):
    """Only the head is promised anything, so who stands behind it can be passed by."""
    jobs = mixed(8)
    ours, fifo = (measures.first_starts_s(simulate(jobs, 8, policy)) for policy in (Easy(), FIFO))
    assert any(ours[name] > fifo[name] for name in fifo)


def test_a_profile_gives_the_earliest_gap_that_is_long_enough():
    profile = Profile(0, 2, [(10, 3), (10, 1), (30, 2)])  # 2 free now, 6 from 10 on, 8 from 30 on
    assert profile.promised(4, 5) == 10  # 2 are left from 10 to 15
    assert profile.promised(3, 100) == 15  # not from 10: too few until 15
    assert profile.promised(2, 10) == 0
    assert profile.promised(2, 1) == 10  # from 0 to 10 nothing is left
    assert profile.promised(8, 1) == 115
    assert profile.times_s == sorted(set(profile.times_s)) and min(profile.free) >= 0


def test_limits_of_users_move_the_gain_of_backfilling():
    """On a drawn trace: exact limits and limits up to tenfold both beat FIFO, and the order keeps its head."""
    jobs = trace.drawn("gavel", 600, seed=3, load_gpus=60)
    fifo = measures.summary(simulate(jobs, 64, FIFO))
    for most in (1.0, 10.0):
        easy = measures.summary(simulate(trace.with_limits(jobs, most, seed=0), 64, Easy()))
        assert easy.mean_wait_h < fifo.mean_wait_h
