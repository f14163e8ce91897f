"""The gaps of chapter 02: which chunk a ring passes on, and how much of a tensor that does not divide."""

from parallel_lab.grading.gaps.function import function_gap

EVERY_RANK = [(rank, n) for n in (2, 3, 4, 5, 8) for rank in range(n)]


def ring_chunks(rank, n):
    """The chunks that `rank` of `n` sends in a ring all-reduce, round by round, beginning with its own number."""
    return [(rank - k) % n for k in range(2 * (n - 1))]


GAPS = (
    function_gap(
        ring_chunks,
        tests={
            "On 4 ranks, each sends the right chunk in each round": [(rank, 4) for rank in range(4)],
            "On any number of ranks": EVERY_RANK,
        },
        mistakes={
            "These are the rounds of one half. How many rounds has the other?": lambda rank, n: ring_chunks(rank, n)[
                : n - 1
            ],
            "Chunks come from the left neighbor, so the numbers go down: what did rank r - 1 send in round 0?": (
                lambda rank, n: [(rank + k) % n for k in range(2 * (n - 1))]
            ),
            "In the second half a rank does not begin with its own number again: which chunk is finished on it?": (
                lambda rank, n: ring_chunks(rank, n)[: n - 1] * 2
            ),
        },
    ),
)
