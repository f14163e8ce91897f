"""The gaps of chapter 15: a gradient over uneven shares, who may be backfilled, dominant resource fairness."""

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

RUNNING = [(2, 100), (4, 40), (8, 300)]  # GPUs, and when the limit ends; by GPUs they stand in another order
TOGETHER = [(3, 100), (2, 100), (8, 300)]
PAPER = ([9, 18], [[1, 4], [3, 1]])  # 9 CPUs and 18 GB; Ghodsi et al. 2011


def sched_weights(shares):
    """The factor of each rank's mean loss, so that DDP's average over ranks is the mean over all samples."""
    return [len(shares) * share / sum(shares) for share in shares]


def _reservation(free, head_gpus, running):
    # The package has this as `promise`; a rank that runs a gap loads this file, and may load no technique.
    for start_s in sorted(end_s for _, end_s in running):
        left_over = free + sum(gpus for gpus, end_s in running if end_s <= start_s) - head_gpus
        if left_over >= 0:
            return start_s, left_over
    return float("inf"), 0


def sched_may_backfill(now_s, free, head_gpus, running, gpus, limit_s):
    """Whether EASY starts this job now, before the head that waits for `head_gpus`; running: (GPUs, end by limit)."""
    start_s, left_over = _reservation(free, head_gpus, running)
    return gpus <= free and (now_s + limit_s <= start_s or gpus <= left_over)


def sched_drf(capacity, needs):
    """The tasks that each user runs, when the next one always goes to the least dominant share that still fits."""
    return _filled(capacity, needs, lambda tasks, need: tasks * max(n / c for n, c in zip(need, capacity, strict=True)))


def _filled(capacity, needs, share):
    tasks, free = [0] * len(needs), list(capacity)
    while True:
        fits = [i for i, need in enumerate(needs) if all(n <= f for n, f in zip(need, free, strict=True))]
        if not fits:
            return tasks
        least = min(fits, key=lambda i: share(tasks[i], needs[i]))
        tasks[least] += 1
        free = [f - n for f, n in zip(free, needs[least], strict=True)]


def _shares_alone(shares):
    return [share / sum(shares) for share in shares]


def _equal(shares):
    return [1.0] * len(shares)


def _inverse(shares):
    return [sum(shares) / len(shares) / share for share in shares]


def _only_time(now_s, free, head_gpus, running, gpus, limit_s):
    return gpus <= free and now_s + limit_s <= _reservation(free, head_gpus, running)[0]


def _who_fits(now_s, free, head_gpus, running, gpus, limit_s):
    return gpus <= free


def _from_zero(now_s, free, head_gpus, running, gpus, limit_s):
    return sched_may_backfill(0, free, head_gpus, running, gpus, limit_s)


def _first_to_end(now_s, free, head_gpus, running, gpus, limit_s):
    start_s = min(end_s for _, end_s in running)
    return gpus <= free and now_s + limit_s <= start_s


def _one_by_one(now_s, free, head_gpus, running, gpus, limit_s):
    apart = [(held, end_s + place / 1e6) for place, (held, end_s) in enumerate(running)]
    return sched_may_backfill(now_s, free, head_gpus, apart, gpus, limit_s)


def _equal_tasks(capacity, needs):
    return _filled(capacity, needs, lambda tasks, need: tasks)


def _first_resource(capacity, needs):
    return _filled(capacity, needs, lambda tasks, need: tasks * need[0] / capacity[0])


def _assets(capacity, needs):
    return _filled(capacity, needs, lambda tasks, need: tasks * sum(n / c for n, c in zip(need, capacity, strict=True)))


GAPS: tuple[Exercise, ...] = (
    function_gap(
        sched_weights,
        tests={
            "Uneven shares": [([8, 8, 8, 4],), ([5, 2, 1],)],
            "Equal shares": [([7, 7, 7],)],
        },
        mistakes={
            "DDP divides by the number of ranks once more: equal shares must keep the factor 1.": _shares_alone,
            "With equal factors a rank of few samples counts as much as one of many.": _equal,
            "A rank with more samples must count more, not less.": _inverse,
        },
    ),
    function_gap(
        sched_may_backfill,
        tests={
            "It ends before the reservation": [
                (0, 2, 6, RUNNING, 2, 40),
                (0, 2, 8, RUNNING, 2, 60),
                (0, 2, 8, RUNNING, 2, 100),
            ],
            "It does not end in time, and takes what the head needs": [
                (0, 2, 8, RUNNING, 1, 101),
                (30, 2, 8, RUNNING, 2, 90),
            ],
            "It does not end in time, and the head leaves enough over": [
                (0, 3, 8, RUNNING, 1, 900),
                (0, 4, 6, RUNNING, 2, 500),
                (0, 2, 5, TOGETHER, 1, 900),
            ],
            "It does not fit": [(0, 2, 8, RUNNING, 3, 10)],
        },
        mistakes={
            "Also a long job may start, if it uses only GPUs that the head will leave over.": _only_time,
            "The head would wait longer. When can it start, by the limits of what runs?": _who_fits,
            "The limit counts from now: it ends at now + limit.": _from_zero,
            "The first job to end may not free enough. Add up the GPUs in the order of the ends.": _first_to_end,
            "Two limits end at that moment, and the GPUs of both are free then.": _one_by_one,
        },
    ),
    function_gap(
        sched_drf,
        tests={
            "The example of the paper: 9 CPUs, 18 GB": [PAPER],
            "GPUs and memory": [([16, 100], [[4, 2], [1, 5], [1, 20]]), ([10, 100], [[1, 30], [2, 2]])],
            "One resource, and equal shares": [([10], [[1], [4]]), ([3], [[1], [1]])],
        },
        mistakes={
            "Equal numbers of tasks favor whoever has the larger tasks.": _equal_tasks,
            "A user's dominant resource need not be the first one: take the largest of his shares.": _first_resource,
            "Dominant is the largest of a user's shares, not their sum.": _assets,
        },
    ),
)
