"""When the backward pass hides the gradient exchange, with pencil and paper; the tests hold each form against a plan.

N parameters, t tokens per GPU and step, F FLOP/s that a GPU reaches, W bytes/s of the exchange in one direction.
Backward takes 4 N t / F, two of the three products of 6 N. A ring all-reduce of S bytes takes 2 (n-1)/n S / W. S is 2
or 4 bytes times N, so whether one hides the other does not depend on the model: in 16 bits from t = F / W on.

With gradient accumulation t is the last microbatch: under `no_sync` the others send nothing.

Left out: latencies, attention (it adds to computing), and that communication slows a GPU's computing down.
`formulas.tokens_to_hide` has the same for the sharded stages.
"""

from parallel_lab.data_parallel.formulas import tokens_to_hide


def step_s(forward_s: float, backward_s: float, buckets: int, bucket_s: float, overlap: bool = True) -> float:
    """Seconds of a step whose gradients travel in `buckets` equal buckets of `bucket_s` each.

    Overlapped, forward + compute + (q-1) max(compute, send) + send for q buckets, where a bucket is computed in the
    seconds `compute` and sent in the seconds `send`: the first bucket is computed alone, the last one travels alone,
    and between them the longer of both sets the pace. Otherwise all buckets follow the backward pass.
    """
    if not overlap:
        return forward_s + backward_s + buckets * bucket_s
    part_s = backward_s / buckets
    return forward_s + part_s + (buckets - 1) * max(part_s, bucket_s) + bucket_s


def tokens_that_hide(
    flops_per_s: float, bytes_per_s: float, gradient_bytes: float = 2, ranks: int | None = None
) -> float:
    """The tokens of one backward pass from which on a ring all-reduce fits beside it, per GPU: S / (2 N) * F / W.

    Args:
        flops_per_s: what a GPU reaches while it computes: below its peak, and above the MFU, which counts waiting.
        bytes_per_s: what the all-reduce reaches: of a ring, the slowest link in one direction (the bus bandwidth of
            nccl-tests).
        gradient_bytes: S / N, of one parameter: 2 in 16 bits, 4 in float32, which doubles the answer.
        ranks: n, for the exact factor (n-1)/n; without it the limit for many ranks.
    """
    share = (ranks - 1) / ranks if ranks else 1.0
    return share * tokens_to_hide("ddp", flops_per_s, bytes_per_s, reduce_bytes=gradient_bytes).backward
