"""The gaps of chapter 04: backup workers, staleness from the order of updates, and how often ranks meet."""

from parallel_lab.grading.gaps.forms import function_gap


def partial_seconds(times, needed):
    """How long steps take in which the first `needed` gradients make the update; `times` has one list per step."""
    return sum(sorted(step)[needed - 1] for step in times)


def staleness(order):
    """Of each update, where a worker reads the weights at the start and right after each update of its own."""
    read, found = {}, []
    for version, worker in enumerate(order):
        found.append(version - read.get(worker, 0))
        read[worker] = version + 1
    return found


def count_meetings(counts, every):
    """How often ranks with so many batches average: after `every` steps, and once after the last ones."""
    return -(-max(counts) // every)


def _since_own_update(order):
    return [stale + (worker in order[:place]) for place, (worker, stale) in enumerate(zip(order, staleness(order)))]  # noqa: B905


def _times(dice):
    return [[dice.randrange(1, 50) for _ in range(4)] for _ in range(5)]


GAPS = (
    function_gap(
        partial_seconds,
        tests={
            "Where all are needed, all wait for the slowest": lambda dice: [(_times(dice), 4), ([[1, 1, 3]] * 2, 3)],
            "With fewer": lambda dice: [(_times(dice), needed) for needed in (1, 2, 3)],
        },
        mistakes={
            "That waits for all. The update is made when so many as are needed have come.": (
                lambda times, needed: sum(map(max, times))
            ),
            "That waits for the first alone.": lambda times, needed: sum(map(min, times)),
            "Workers compute side by side: their seconds do not add up within a step.": (
                lambda times, needed: sum(sum(sorted(step)[:needed]) for step in times)
            ),
        },
    ),
    function_gap(
        staleness,
        tests={
            "Workers in turn": [([0, 1, 2, 0, 1, 2, 0, 1, 2],), ([0, 0, 0],)],
            "One that is slow": [([0, 1, 0, 1, 0, 1, 2, 0, 1],), ([0, 0, 0, 1],)],
            "In any order": lambda dice: [([dice.randrange(4) for _ in range(15)],) for _ in range(5)],
        },
        mistakes={
            "Its own update is in the weights that it reads next. Who else has updated since?": _since_own_update,
            "A worker reads again after each update of its own, not only at the start.": (
                lambda order: list(range(len(order)))
            ),
        },
    ),
    function_gap(
        count_meetings,
        tests={
            "Equal counts that `every` divides": [([10, 10], 5), ([12] * 4, 3), ([4], 4)],
            "Counts that it does not, and ranks that have fewer batches": [
                ([10, 10], 4),
                ([7, 5, 2], 3),
                ([2, 6, 5, 1], 2),
                ([3, 2], 10),
                ([9, 1], 4),
            ],
        },
        mistakes={
            "After the last steps they average once more; otherwise each rank ends with weights of its own.": (
                lambda counts, every: max(counts) // every
            ),
            "A rank whose batches have run out still takes part in the averages of the others.": (
                lambda counts, every: -(-min(counts) // every)
            ),
        },
    ),
)
