"""Quotas: what is reserved, lent, and taken back."""

from dataclasses import replace

import pytest

from parallel_lab.systems.scheduling import SKIPPING, Job, Quotas, measures, priorities, simulate

HALVES = {"a": 4, "b": 4}
SHARED = [Job("a", 0, 4, 50, user="a"), Job("c", 0, 4, 50, user="c")]


def of_teams(jobs, largest=8):
    """The jobs, the first two thirds of them of team a, so that it needs more than its quota."""
    return [replace(job, user="aab"[n % 3], gpus=min(job.gpus, largest)) for n, job in enumerate(jobs)]


def held_by(schedule, user, at_s):
    return sum(run.gpus for run in schedule.runs if run.job.user == user and run.start_s <= at_s < run.end_s)


@pytest.mark.parametrize("seed", range(6))
def test_a_hard_quota_is_a_cluster_of_its_own(mixed, seed):
    jobs = of_teams(mixed(seed), largest=4)
    ours = simulate(jobs, 8, Quotas(HALVES, borrows=False)).ends
    for team in "ab":
        alone = simulate([job for job in jobs if job.user == team], 4, SKIPPING).ends
        assert {name: ours[name] for name in alone} == alone


@pytest.mark.parametrize("seed", range(6))
def test_with_reclaiming_a_team_never_waits_for_its_quota(mixed, seed):
    """At each event, a job that waits would take its team above its quota."""
    jobs = of_teams(mixed(seed), largest=4)
    schedule = simulate(jobs, 8, Quotas(HALVES))
    firsts = measures.first_starts_s(schedule)
    for sample in schedule.samples:
        for job in jobs:
            if job.arrival_s <= sample.at_s < firsts[job.name]:
                assert held_by(schedule, job.user, sample.at_s) + job.gpus > HALVES[job.user]


def test_without_reclaiming_the_owner_waits_for_strangers():
    jobs = [Job("lent", 0, 8, 100, user="a"), Job("own", 10, 4, 5, user="b")]
    how = {"borrows": Quotas(HALVES, reclaims=False), "reclaims": Quotas(HALVES)}
    waits = {name: measures.wait_s(simulate(jobs, 8, policy))["own"] for name, policy in how.items()}
    assert waits == {"borrows": 90.0, "reclaims": 0.0}


def test_what_is_lent_is_used_and_what_is_reclaimed_is_paid_by_the_borrower():
    jobs = [Job(f"a{n}", 0, 2, 100, user="a") for n in range(4)] + [Job("b", 10, 3, 30, user="b")]
    hard = simulate(jobs, 8, Quotas(HALVES, borrows=False))
    lent = simulate(jobs, 8, Quotas(HALVES), checkpoint_s=float("inf"))
    assert held_by(hard, "a", 5) == 4 and held_by(lent, "a", 5) == 8
    assert held_by(lent, "a", 15) == 4 and held_by(lent, "b", 15) == 3, "two jobs of 2 make room for one of 3"
    assert priorities.wasted_gpu_s(lent) == 2 * 2 * 10
    assert measures.wait_s(lent)["b"] == 0
    assert lent.ends["b"] == 40 and max(lent.ends.values()) < max(hard.ends.values())


def test_nothing_is_reclaimed_from_teams_within_their_quota_or_in_vain():
    jobs = [*SHARED, Job("b", 10, 4, 5, user="b")]
    over = Quotas({"a": 4, "b": 4, "c": 4})  # more was promised than there is
    schedule = simulate(jobs, 8, over)
    assert len(schedule.runs) == 3 and measures.wait_s(schedule)["b"] == 40
    jobs = [Job("large", 0, 6, 50, user="a"), Job("young", 1, 2, 50, user="a"), Job("b", 10, 4, 5, user="b")]
    runs = simulate(jobs, 8, Quotas(HALVES)).runs
    assert [run.job.name for run in runs if run.end_s == 10] == ["large"], "the youngest alone has too few"
    stranger = simulate([*SHARED, Job("d", 10, 4, 5, user="d")], 8, Quotas({"a": 4, "c": 4}))
    assert len(stranger.runs) == 3, "a team without a quota can borrow and never reclaims"
