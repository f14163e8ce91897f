"""Fair shares against the published examples, their definitions, and users who lie."""

import random
from collections import Counter
from fractions import Fraction

import pytest

from parallel_lab.systems.scheduling import FairShares, Job, measures, shares, simulate

PAPER = {"A": {"cpu": 1, "memory": 4}, "B": {"cpu": 3, "memory": 1}}  # Ghodsi et al. 2011: 9 cores, 18 GB
PAPER_HAS = {"cpu": 9, "memory": 18}


def drawn(seed, users=4):
    """A cluster and what the tasks of its users need; now and then nothing of a resource."""
    dice = random.Random(seed)
    has = {"gpu": 64.0, "cpu": 512.0, "memory": 4096.0}
    needs = {
        f"u{number}": {name: amount * dice.choice([0, 1, 2, 5]) / 100 for name, amount in has.items()} | {"gpu": 1.0}
        for number in range(users)
    }
    return needs, has


def test_dominant_shares_are_those_of_the_paper():
    assert shares.whole_tasks(PAPER, PAPER_HAS) == {"A": 3, "B": 2}
    assert shares.drf(PAPER, PAPER_HAS) == pytest.approx({"A": 3, "B": 2})


def test_one_resource_is_max_min():
    claims = {"a": 2.0, "b": 2.6, "c": 4.0, "d": 5.0}
    assert shares.max_min(claims, 10) == pytest.approx({"a": 2, "b": 2.6, "c": 2.7, "d": 2.7})
    assert shares.max_min(claims, 100) == claims
    weighted = shares.max_min({"a": 9.0, "b": 9.0, "c": 1.0}, 10, {"a": 2.0})
    assert weighted == pytest.approx({"a": 6, "b": 3, "c": 1})
    endless = dict.fromkeys("abc", 1e9)
    assert shares.drf({user: {"gpu": 1} for user in endless}, {"gpu": 10}) == pytest.approx(shares.max_min(endless, 10))


@pytest.mark.parametrize("seed", range(20))
def test_max_min_is_the_fixed_point_of_its_definition(seed):
    """Nobody gets more than he claims, and whoever gets less has at least as much for his weight as anybody else."""
    dice = random.Random(seed)
    claims = {str(number): Fraction(dice.randint(1, 40)) for number in range(6)}
    weights = {user: Fraction(dice.randint(1, 4)) for user in claims}
    got = shares.max_min(claims, Fraction(60), weights)
    assert sum(got.values()) == min(60, sum(claims.values()))
    for user, share in got.items():
        assert share <= claims[user]
        if share < claims[user]:
            assert all(share / weights[user] >= got[other] / weights[other] for other in got)


@pytest.mark.parametrize("seed", range(40))
def test_dominant_shares_have_the_four_properties(seed):
    needs, has = drawn(seed)
    tasks = shares.drf(needs, has)
    assert shares.better_alone(tasks, needs, has) == [] == shares.envious(tasks, needs)
    assert shares.can_grow(tasks, needs, has) == []
    dice = random.Random(-seed)
    for user, need in needs.items():
        for _ in range(5):
            claim = {name: max(amount, 1e-3 * has[name]) * 4 ** dice.uniform(-1, 1) for name, amount in need.items()}
            assert shares.gain_by_lying(shares.drf, needs, has, user, claim) < 1e-6


def test_equal_sums_of_parts_break_the_sharing_incentive():
    needs, has = {"one": {"cpu": 1, "memory": 3}, "two": {"cpu": 1, "memory": 1}}, {"cpu": 30, "memory": 30}
    tasks = shares.assets(needs, has)
    assert tasks == pytest.approx({"one": 6, "two": 12}) and shares.better_alone(tasks, needs, has) == ["two"]
    assert shares.better_alone(shares.drf(needs, has), needs, has) == []


def test_shares_in_proportion_to_claims_reward_a_lie():
    claims = {"honest": 10.0, "liar": 10.0}
    assert shares.proportional(claims, 10)["liar"] == 5
    assert shares.proportional(claims | {"liar": 90.0}, 10)["liar"] == 9
    assert shares.max_min(claims | {"liar": 90.0}, 10)["liar"] == 5

    def rule(needs, has):
        claimed = shares.proportional({user: need["gpu"] for user, need in needs.items()}, has["gpu"])
        return {user: claimed[user] / needs[user]["gpu"] for user in needs}

    needs, has = {"a": {"gpu": 1.0}, "b": {"gpu": 1.0}}, {"gpu": 1.0}
    assert shares.envious(rule({**needs, "b": {"gpu": 3.0}}, has), {**needs, "b": {"gpu": 3.0}}) == [("a", "b")]


def test_the_properties_find_what_is_wrong():
    half = {"A": 1.5, "B": 1.0}
    assert shares.can_grow(half, PAPER, PAPER_HAS) == ["A", "B"] == shares.better_alone(half, PAPER, PAPER_HAS)
    assert shares.envious({"A": 0.1, "B": 2.9}, PAPER) == [("A", "B")]


@pytest.mark.parametrize("policy", [FairShares(), FairShares(preempts=True)], ids=["waits", "preempts"])
def test_a_late_user_comes_to_his_share(policy):
    """One user fills 8 GPUs with jobs of 1; another one comes."""
    jobs = [Job(f"a{number}", 0, 1, 10, user="a") for number in range(24)]
    jobs += [Job(f"b{number}", 5, 1, 10, user="b") for number in range(8)]
    firsts = measures.first_starts_s(simulate(jobs, 8, policy))
    early = sorted(start for name, start in firsts.items() if name[0] == "b")[:4]
    assert early == ([5.0] * 4 if policy.preempts else [10.0] * 4)
    runs = simulate(jobs, 8, policy).runs
    held = [run.job.user for run in runs if run.start_s <= 12 < run.end_s]
    assert held.count("a") == held.count("b") == 4, "when the first jobs are over, both are equal in any case"


def test_nobody_is_stopped_in_vain():
    """A job of 3 wants GPUs of a user who holds all 8: the youngest has too few of them, and goes on."""
    jobs = [
        Job(name, at_s, gpus, 50, user="a")
        for at_s, (name, gpus) in enumerate([("old", 3), ("large", 4), ("young", 1)])
    ]
    runs = simulate([*jobs, Job("late", 10, 3, 5, user="b")], 8, FairShares(preempts=True)).runs
    assert [run.job.name for run in runs if run.end_s == 10] == ["large"]


def test_weights_are_kept():
    jobs = [Job(f"{user}{number}", 0, 1, 10 + number / 100, user=user) for user in "ab" for number in range(20)]
    held = [run.job.user for run in simulate(jobs, 8, FairShares({"a": 3.0})).runs if run.start_s == 0]
    assert held.count("a") == 6 and held.count("b") == 2


@pytest.mark.parametrize("seed", range(6))
def test_taking_back_ends_and_never_raises_a_user_above_whom_it_takes_from(mixed, seed):
    """Where one job takes GPUs from others, and no two users take from each other without end."""
    taken = []

    class Watched(FairShares):
        def choose(self, now_s, waiting, running, free):
            decision = super().choose(now_s, waiting, running, free)
            held = Counter()
            for one in [*running, *waiting]:
                held[one.job.user] += decision.gpus.get(one, one.gpus)
            stopped = [one.job.user for one, gpus in decision.gpus.items() if not gpus]
            if stopped and len(stopped) == len(decision.gpus) - 1:
                (start,) = (one.job.user for one, gpus in decision.gpus.items() if gpus)
                taken.append(min(held[user] for user in stopped) - held[start])
            return decision

    jobs = [
        Job(job.name, job.arrival_s, job.gpus, job.duration_s, user="abc"[n % 3]) for n, job in enumerate(mixed(seed))
    ]
    schedule = simulate(jobs, 8, Watched(preempts=True))
    assert set(schedule.ends) == {job.name for job in jobs}
    assert min(taken) >= 0
    assert len(schedule.runs) < 6 * len(jobs)
