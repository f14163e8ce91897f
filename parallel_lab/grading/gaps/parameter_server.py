"""The gaps of chapter 05: who owns an element, who must wait, and a rate divided by the staleness of a push."""

from parallel_lab.grading.gaps.forms import function_gap


def owner(index, total, servers):
    """The server of element `index`; the first shards have an element more where `total` does not divide."""
    return next(s for s in range(servers) if index < (s + 1) * (total // servers) + min(s + 1, total % servers))


def _from_zero(index, total, servers):
    size, more = divmod(total, servers)
    larger = more * (size + 1)
    return index // (size + 1) if index < larger else (index - larger) // size


def waiting(clocks, bound):
    """The workers that may not pull: more than `bound` steps ahead of the slowest."""
    return [worker for worker, clock in enumerate(clocks) if clock - min(clocks) > bound]


def stale_steps(weight, pushes, lr):
    """The weight after pushes of (version read, gradient), each at a rate divided by its staleness."""
    for version, (read, gradient) in enumerate(pushes):
        weight -= lr / max(1, version - read) * gradient
    return weight


def _steps(weight, pushes, lr, rate):
    for version, (read, gradient) in enumerate(pushes):
        weight -= rate(lr, version - read) * gradient
    return weight


def _pushes(dice, late):
    return [(max(0, version - dice.randrange(late + 1)), dice.uniform(-1, 1)) for version in range(12)]


GAPS = (
    function_gap(
        owner,
        tests={
            "Where the weights divide evenly": [(index, 12, 3) for index in range(12)],
            "Where the first shards have one more": [
                (index, total, servers)
                for total, servers in ((2411, 2), (10, 4), (11, 3), (5, 4))
                for index in {0, total // servers, total // servers + 1, total // 2, total - 1}
            ],
        },
        mistakes={
            "Stretches, not a deal of cards: neighbors lie on the same server.": (
                lambda index, total, servers: index % servers
            ),
            "The last shard is no longer than the others: the elements left over go to the first ones.": (
                lambda index, total, servers: min(index // (total // servers), servers - 1)
            ),
            "Not every shard has the size of the largest: how many have one element more?": (
                lambda index, total, servers: index // -(-total // servers)
            ),
            "Behind the larger shards, servers count on from `more`, not from 0.": _from_zero,
        },
    ),
    function_gap(
        waiting,
        tests={
            "Workers within the bound go on": [([3, 3, 3], 0), ([5, 4, 3], 2), ([0, 1], 1), ([7], 0)],
            "Who is further ahead waits": lambda dice: [
                ([4, 1, 2], 2),
                ([9, 8, 2], 0),
                *(([dice.randrange(9) for _ in range(5)], 2) for _ in range(8)),
            ],
        },
        mistakes={
            "Exactly `bound` steps ahead is still allowed.": (
                lambda clocks, bound: [w for w, clock in enumerate(clocks) if clock - min(clocks) >= bound]
            ),
            "The slow one need not wait for anybody: it is the others that are ahead of it.": (
                lambda clocks, bound: [w for w, clock in enumerate(clocks) if max(clocks) - clock > bound]
            ),
        },
    ),
    function_gap(
        stale_steps,
        tests={
            "Fresh pushes step as plain SGD does": lambda dice: [(1.0, _pushes(dice, 0), 0.1)],
            "Stale ones step less": lambda dice: [(1.0, _pushes(dice, 5), 0.1) for _ in range(3)],
        },
        mistakes={
            "How many updates has the server made since this worker read? The rate is divided by that.": (
                lambda weight, pushes, lr: _steps(weight, pushes, lr, lambda rate, stale: rate)
            ),
            "A staleness of 1 still has the whole rate, as 0 has. Which version does the first push meet?": (
                lambda weight, pushes, lr: _steps(weight, pushes, lr, lambda rate, stale: rate / (1 + stale))
            ),
        },
    ),
)
