"""What tables say of a schedule, on schedules that can be computed by hand."""

import pytest

from parallel_lab.systems.scheduling import FIFO, SJF, Elastic, Job, Schedule, measures, simulate, summary

# One GPU: a long job, and a short one that comes just after.
TWO = [Job("long", 0, 1, 9), Job("short", 1, 1, 1)]


def test_times_of_two_jobs_on_one_gpu():
    schedule = simulate(TWO, 1, FIFO)
    assert measures.jct_s(schedule) == {"long": 9, "short": 9}
    assert measures.wait_s(schedule) == {"long": 0, "short": 8}
    assert measures.delay_s(schedule) == {"long": 0, "short": 8}
    assert measures.slowdown(schedule) == {"long": 1, "short": 9}
    assert measures.slowdown(schedule, least_s=3) == {"long": 1, "short": 3}
    assert measures.makespan_s(schedule) == 10 and measures.utilization(schedule) == 1
    assert measures.mean_over_time(schedule, "waiting") == 0.8 and measures.mean_over_time(schedule, "held") == 1


def test_jobs_and_gpu_hours_tell_opposite_stories():
    """9 small jobs behind a large one: the mean over jobs asks for the short ones first, the work does not."""
    jobs = [Job("large", 0, 8, 100), *(Job(f"small {n}", 0, 1, 10) for n in range(9))]
    fifo, short = simulate(jobs, 8, FIFO), simulate(jobs, 8, SJF)
    by_name = measures.by_name(fifo)
    plain = [sum(measures.jct_s(one).values()) / 10 for one in (fifo, short)]
    weighted = [measures.weighted_mean(measures.jct_s(one), by_name) for one in (fifo, short)]
    assert plain[0] > 2 * plain[1] and weighted[0] < weighted[1]


def test_jain_between_all_and_one():
    assert measures.jain([3, 3, 3]) == 1 and measures.jain([1, 0, 0, 0]) == 0.25
    assert measures.jain([1, 2, 3]) == pytest.approx(36 / 42)


def test_finish_time_fairness_is_one_where_all_share_alike():
    """Two jobs that ask for all GPUs: shared evenly both have 1; one after the other, the second has no more either."""
    jobs = [Job("a", 0, 4, 100, least_gpus=1), Job("b", 0, 4, 100, least_gpus=1)]
    assert measures.finish_time_fairness(simulate(jobs, 4, Elastic())) == {"a": 1, "b": 1}
    # b is with a for 100 s and alone for 100 s: 1.5 jobs on average, so alone on its share it would take 150 s
    assert measures.finish_time_fairness(simulate(jobs, 4, FIFO)) == {"a": 0.5, "b": pytest.approx(200 / 150)}


def test_quantiles_are_values():
    assert [measures.quantile(range(1, 101), part) for part in (0, 0.5, 0.99, 0.991, 1)] == [1, 50, 99, 100, 100]
    assert measures.quantile([7], 0.5) == 7


def test_busy_leaves_out_the_time_when_nobody_comes_any_more():
    jobs = [Job("a", 0, 1, 1000), Job("b", 0, 3, 100), Job("c", 100, 3, 1)]
    schedule = simulate(jobs, 4, FIFO)
    assert measures.busy(schedule) == 1
    assert measures.utilization(schedule) == pytest.approx((1000 + 300 + 3) / 4000)


def test_a_summary_is_its_measures():
    schedule = simulate([Job("a", 0, 1, 7200), Job("b", 3600, 1, 3600)], 1, FIFO)
    row = summary(schedule)
    assert (row.policy, row.mean_jct_h, row.median_jct_h, row.longest_wait_h, row.makespan_h) == ("FIFO", 2, 2, 1, 3)
    assert (row.utilization, row.busy, row.restarts, row.weighted_jct_h) == (1, 1, 0, 2)
    assert isinstance(schedule, Schedule)
