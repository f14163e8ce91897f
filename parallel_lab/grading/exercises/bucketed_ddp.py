"""Chapter 03: data parallelism with buckets that are all-reduced while backward still runs.

Li et al. 2020, "PyTorch Distributed", section 3.2.

Gradients become ready last layer first. As soon as a bucket of them is full it can travel, beside the backward of the
layers before. A rank sends 2 (n-1)/n of the gradients, in one message train a bucket instead of one a parameter.
"""

from parallel_lab.grading.drivers import batches, train_ddp
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import STEP, equals, fills_buckets, heard, overlaps, sends
from parallel_lab.grading.oracles import TRAINED, data_parallel
from parallel_lab.network import Link

SHARED = {"widths": (3, 6, 6, 6, 2), "tied": True, "bucket_bytes": 300}  # a tied weight and a frozen bias
DEEP = {"widths": (24,) * 9, "batches": 1, "bucket_bytes": 10_000}  # 8 layers of 4.8 kB: two a bucket
SMALL_BYTES, DEEP_BYTES = (5 * 7 + 7 + 7 * 7 + 7 + 7 * 3 + 3) * 8, 8 * (24 * 24 + 24) * 8
SLOW = Link(bytes_per_s=240_000)  # at 2 ranks a bucket takes 40 ms, and a layer's backward some 0.1 ms
MEAN = "When backward() returns, .grad is the mean over ranks of each rank's gradient."
START = "All ranks start with the weights of rank 0."
HOOK = "The hook of the last gradient of a bucket is the moment to start its all-reduce."
right = equals({"after bucketed_ddp(): parameter": START, "the gradient of parameter": MEAN}, TRAINED)


def traffic(size_bytes: int):
    """A ring's bytes for gradients of `size_bytes`, give or take the rounding of buckets."""
    return sends(
        "the all-reduce of all gradients sends",
        lambda case: 2 * (case.ranks - 1) * size_bytes / case.ranks,
        advice="Each gradient travels once a step, and nothing else does.",
        slack=64,
        between=STEP,
    )


EXERCISE = Exercise(
    name="bucketed_ddp",
    title="Data parallelism with buckets and overlap",
    level="hard",
    minutes=60,
    notebook="03_data_parallel",
    given=batches,
    drive=train_ddp,
    expected=data_parallel,
    settings={"widths": (5, 7, 7, 3), "tied": False, "bucket_bytes": 400, "rows": (4, 2, 3), "batches": 2},
    tests=(
        test(
            "After backward() every rank has the mean gradient, at 1, 2 and 4 ranks, step after step",
            on((1, 2, 4), right),
        ),
        test(
            "A weight that two layers share counts once, and a frozen parameter gets no gradient, at 3 ranks",
            on(3, right, **SHARED),
        ),
        test(
            "Each rank sends 2 (n-1)/n of the gradients a step, and they carry the data",
            on(4, traffic(SMALL_BYTES)),
            on(2, traffic(DEEP_BYTES), link=SLOW, **DEEP),
            on(2, heard(), changed=True),
        ),
        test(
            "Small gradients travel together, in buckets of `bucket_bytes` at the most",
            on(2, fills_buckets(DEEP["bucket_bytes"], most_calls=5), link=SLOW, **DEEP),
        ),
        test("Buckets travel while backward still runs", on(2, overlaps(0.5, HOOK), right, link=SLOW, **DEEP)),
    ),
)
