"""Chapter 14: buckets for a given link (Li et al. 2020, section 3.2.3; a ring's price as Patarasuk and Yuan 2009)."""

from functools import partial

from parallel_lab.grading import bucketing, compressed, drivers
from parallel_lab.grading.exercise import Exercise, on

FAR, SLOW, FAST = (5e-3, 1.25e9), (20e-6, 125e6), (5e-6, 25e9)  # latency in s, bytes per s
MIDDLE = (100e-6, 1.25e9)
ORDER = "Backward begins with the last layer. Which gradients are there first, and which bucket may leave first?"
TINY = "Each bucket pays the latency of its whole ring again, 2 (n-1) of them. Which layers could travel together?"
BIG = "A bucket that waits for all layers leaves when backward is over. What could the link do until then?"
FIXED = "25 MiB is a default that knows neither the link nor the layers: compare its time with what the latency costs."
RINGS = "That counts one latency for an all-reduce. How many messages follow one another in a ring of n ranks?"
BEST = "For each possible last bucket, what was the best way to send all before it? You have computed that already."
WAITS = "When is a bucket full, when is the link free, and how long does the all-reduce take? Add that up for two cuts."

usual = {
    TINY: bucketing.one_each,
    BIG: bucketing.one_bucket,
    FIXED: bucketing.of_one_size,
    RINGS: bucketing.of_one_latency,
}
once = bucketing.in_buckets_once(ORDER)


def calls(*links: tuple[float, float], repeated: int = 1) -> tuple:
    """The calls of one test."""
    return (partial(compressed.layers, links=links, repeated=repeated),)


EXERCISE = Exercise(
    name="choose_buckets",
    given=drivers.calls,
    drive=drivers.call_each,
    device="cpu",
    tests={
        # Step 1
        "Each layer is in one bucket, and the last layers leave first": on(1, once, calls=calls(FAR, SLOW, FAST)),
        # Step 2
        "On links with a long latency the step takes 1.3 times the shortest at the most": on(
            1, once, bucketing.is_fast(1.3, usual, WAITS), calls=calls(FAR, repeated=3)
        ),
        "On links with little bandwidth it takes 1.15 times the shortest at the most": on(
            1, once, bucketing.is_fast(1.15, usual, WAITS), calls=calls(SLOW, repeated=3)
        ),
        # Step 3
        "On any link it takes 1.005 times the shortest at the most": on(
            1, once, bucketing.is_fast(1.005, usual, BEST), calls=calls(FAR, MIDDLE, SLOW, FAST, repeated=3)
        ),
    },
)
