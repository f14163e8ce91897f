"""Chapter 03: data parallelism with buckets that are all-reduced while backward still runs (Li et al. 2020, 3.2)."""

from parallel_lab.grading import drivers, expect, oracles
from parallel_lab.grading.exercise import Exercise, changed_on, on
from parallel_lab.network import Link

SMALL = {"widths": (5, 7, 7, 3), "tied": False, "bucket_bytes": 400, "rows": (4, 2, 3), "batches": 2}
SHARED = {"widths": (3, 6, 6, 6, 2), "tied": True, "bucket_bytes": 300}  # a tied weight and a frozen bias
# 8 layers of 4.8 kB: two per bucket. At 2 ranks a bucket takes 40 ms, and a layer's backward some 0.1 ms.
DEEP = {"widths": (24,) * 9, "batches": 1, "bucket_bytes": 10_000, "link": Link(bytes_per_s=240_000)}
START = "All ranks start with the weights of rank 0."
MEAN = "When backward() returns, .grad is the mean over ranks of each rank's gradient."
ONCE = "Each gradient travels once per step, and nothing else does."
HOOK = "The hook of the last gradient of a bucket is the moment to start its all-reduce."


def ring(size: int):
    """A step sends the all-reduce of `size` gradients, give or take the rounding of buckets."""
    what = "the all-reduce of all gradients sends"
    return expect.sends(what, lambda n: 2 * (n - 1) * size * 8 / n, advice=ONCE, slack=64, between=expect.STEP)


EXERCISE = Exercise(
    name="bucketed_ddp",
    given=drivers.batches,
    drive=drivers.train_ddp,
    expected=oracles.data_parallel,
    settings=SMALL,
    always=(expect.equals({"bucketed_ddp(): parameter": START, "gradient of parameter": MEAN}),),
    tests={
        # Step 1
        "After backward() every rank has the mean gradient, at 1, 2 and 4 ranks, step after step": on((1, 2, 4)),
        "A shared weight counts once, and a frozen parameter gets no gradient, at 3 ranks": on(3, **SHARED),
        # Step 2
        "Each rank sends 2 (n-1)/n of the gradients per step, and they carry the data": (
            on(4, ring(42 + 56 + 24)) + on(2, ring(8 * 25 * 24), **DEEP) + changed_on(2)
        ),
        "Small gradients travel together, in buckets of `bucket_bytes` at the most": on(
            2, expect.fills_buckets(10_000, most_calls=5), **DEEP
        ),
        # Step 3
        "Buckets travel while backward still runs": on(2, expect.overlaps(0.5, HOOK), **DEEP),
    },
)
