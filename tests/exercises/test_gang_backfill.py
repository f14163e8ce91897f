"""`gang_backfill`: single GPUs, GPUs given twice, skipping, a promise without those just started, spare taken twice."""

import random

import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab.grading.backfilling import Asked, decisions
from parallel_lab.systems.scheduling import Easy, Job, measures, simulate

by_value(__name__)
NAME = "gang_backfill"
SPACE = solutions(NAME)
promise, gang_backfill = SPACE["promise"], SPACE[NAME]


def front(waiting, free):
    """Those at the front of the line that fit, the line behind them, and what is free then."""
    starts, line = {}, list(waiting)
    while line and line[0][1] <= free:
        name, gpus, _ = line.pop(0)
        starts[name] = gpus
        free -= gpus
    return starts, line, free


def fifo(now_s, waiting, running, free):
    return front(waiting, free)[0]


def what_is_free_to_the_head(now_s, waiting, running, free):
    starts, line, free = front(waiting, free)
    return starts | ({line[0][0]: free} if line and free else {})


def never_counts(now_s, waiting, running, free):
    return {name: gpus for name, gpus, _ in waiting if gpus <= free}


def whoever_fits(now_s, waiting, running, free):
    starts = {}
    for name, gpus, _ in waiting:
        if gpus <= free:
            starts[name] = gpus
            free -= gpus
    return starts


def smallest_first(now_s, waiting, running, free):
    return whoever_fits(now_s, sorted(waiting, key=lambda job: job[1]), running, free)


def backfilled(now_s, waiting, running, free, started=True, beside=True, shared=True):
    """The solution, with parts of it left out."""
    starts, line, free = front(waiting, free)
    if not line:
        return starts
    ends = [(end_s, gpus) for _, gpus, end_s in running]
    if started:
        ends += [(now_s + limit_s, gpus) for name, gpus, limit_s in waiting if name in starts]
    promised_s, spare = promise(line[0][1], free, ends) or (float("inf"), 0)
    for name, gpus, limit_s in line[1:]:
        over = now_s + limit_s <= promised_s
        if gpus <= free and (over or (beside and gpus <= spare)):
            starts[name] = gpus
            free -= gpus
            spare -= 0 if over or not shared else gpus
    return starts


def without_those_just_started(now_s, waiting, running, free):
    return backfilled(now_s, waiting, running, free, started=False)


def spare_taken_twice(now_s, waiting, running, free):
    return backfilled(now_s, waiting, running, free, shared=False)


def only_before(now_s, waiting, running, free):
    return backfilled(now_s, waiting, running, free, beside=False)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        what_is_free_to_the_head,
        0,
        r"GPUs are free; .*in line: j\d+ asks.*the answer gives j\d+ \d GPUs, and it asks for \d\n.*does no work",
    ),
    (never_counts, 0, r"the answer gives away \d+ GPUs\n.*counted before the next one"),
    (smallest_first, 1, r"the answer starts .*, and j\d+ fits\n.*order of arrival"),
    (
        whoever_fits,
        2,
        r"j\d+ can start at \d+ s, and with j\d+.* started only at \d+ s\n.*(latest, by its limit|would do no harm)",
    ),
    (spare_taken_twice, 4, r"and with j\d+, j\d+.* started only at \d+ s\n.*Each of them alone would do no harm"),
    (without_those_just_started, 2, r"can start at \d+ s, and with j\d+.* started only at"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def largest_first(now_s, waiting, running, free):
    """Not a cheat: it lets the largest in first, behind a head that keeps its promise."""
    starts, line, _ = front(waiting, free)
    behind = sorted(line[1:], key=lambda job: -job[1])
    return gang_backfill(now_s, [job for job in waiting if job[0] in starts] + line[:1] + behind, running, free)


def test_who_is_over_before_the_head_takes_nothing_of_its_spare():
    def always_taken(now_s, waiting, running, free):
        starts, line, free = front(waiting, free)
        if not line:
            return starts
        ends = [(end_s, gpus) for _, gpus, end_s in running]
        ends += [(now_s + limit_s, gpus) for name, gpus, limit_s in waiting if name in starts]
        promised_s, spare = promise(line[0][1], free, ends)
        for name, gpus, limit_s in line[1:]:
            if gpus <= free and (now_s + limit_s <= promised_s or gpus <= spare):
                starts[name], free, spare = gpus, free - gpus, spare - gpus
        return starts

    assert_found_out(NAME, always_taken, 4, r"fits beside it, and the answer starts .*\n.*may run on beside it")


def test_what_is_no_number_of_gpus_is_said():
    def limits(now_s, waiting, running, free):
        return {name: limit_s for name, _, limit_s in waiting[:1]}

    assert_found_out(NAME, limits, 0, r"gives j\d+ .* GPUs, and it asks for \d\n.*name of each job")


def test_another_right_answer_passes():
    assert_passes(NAME, largest_first)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, fifo, r"is over before, and the answer starts .*\n.*takes nothing from it")
    assert_ends_a_step(NAME, 2, only_before, r"fits beside it, and the answer starts .*\n.*may run on beside it")


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_on_the_small_cluster_is_easy_on_the_simulated_one(seed):
    """Two clusters and two policies, written apart, start every job at the same moment."""
    dice, now_s, jobs = random.Random(seed), 0.0, []
    for number in range(60):
        now_s, lasts_s = now_s + dice.expovariate(1 / 12), dice.uniform(5, 40)
        gpus, more = dice.choice((1, 1, 2, 3, 4, 6, 8)), dice.uniform(1, 5)
        jobs.append(Asked(f"j{number}", now_s, gpus, lasts_s, more * lasts_s))
    starts = {name: event.now_s for event in decisions(gang_backfill, jobs, 8) for name in event.starts}
    whole = [Job(job.name, job.arrives_s, job.gpus, job.lasts_s, limit_s=job.limit_s) for job in jobs]
    assert starts == pytest.approx(measures.first_starts_s(simulate(whole, 8, Easy())))
