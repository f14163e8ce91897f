"""The gaps of chapter 09: the share of a step that is bubble, and what a rank of 1F1B holds."""

from parallel_lab.grading.gaps.forms import function_gap


def bubble_share(p, m, v):
    """The share of a step in which a rank of interleaved 1F1B stands idle: equal stages, messages cost nothing."""
    return (p - 1) / (v * m + p - 1)


def microbatches_held(p, m, r):
    """The most microbatches of activations that rank r of 1F1B holds at once."""
    return min(p - r, m)


GAPS = (
    function_gap(
        bubble_share,
        tests={
            "1F1B, which is v = 1": [(4, 8, 1), (8, 32, 1), (16, 16, 1), (1, 4, 1)],
            "With v chunks per rank": [(4, 8, 2), (8, 8, 4), (16, 64, 8)],
        },
        mistakes={
            "That is idle time per *work*. Which share of the whole step is it?": lambda p, m, v: (p - 1) / (v * m),
            "With v chunks per rank a slot is 1/v as long. How many slots of work has a rank then?": (
                lambda p, m, v: (p - 1) / (m + p - 1)
            ),
        },
    ),
    function_gap(
        microbatches_held,
        tests={
            "Rank by rank": [(4, 16, r) for r in range(4)] + [(8, 32, 3), (1, 5, 0)],
            "Where there are few microbatches": [(8, 4, 0), (8, 4, 6), (4, 1, 1)],
        },
        mistakes={
            "That is how many it runs ahead. And the one that is in work?": lambda p, m, r: min(p - 1 - r, m),
            "GPipe holds all of them. When does 1F1B free the first?": lambda p, m, r: m,
            "There are only m microbatches.": lambda p, m, r: p - r,
        },
    ),
)
