"""`bucketed_ddp`: answers that communicate after backward, or wait in it, fail with their own messages."""

import sys

import cloudpickle
import pytest
import torch.distributed as dist
from bucket_hooks import BUCKETS_OF, back, blocking_in_hook, flat_of, last_first, nothing, start_equal, when_ready
from grading import assert_found_out

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "bucketed_ddp"


def after_backward(model, bucket_bytes):
    start_equal(model)
    full = []

    def finish():
        for bucket in full:
            flat = flat_of(bucket)
            dist.all_reduce(flat)
            back(bucket, flat, dist.get_world_size())
        full.clear()

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), full.append, finish)
    return model


def after_backward_at_once(model, bucket_bytes):
    """Asynchronous, and all handles awaited together: still nothing left to overlap with."""
    start_equal(model)
    full = []

    def finish():
        flats = [flat_of(bucket) for bucket in full]
        for work in [dist.all_reduce(flat, async_op=True) for flat in flats]:
            work.wait()
        for bucket, flat in zip(full, flats, strict=True):
            back(bucket, flat, dist.get_world_size())
        full.clear()

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), full.append, finish)
    return model


def waits_for_future_in_hook(model, bucket_bytes):
    return blocking_in_hook(model, bucket_bytes, lambda flat: dist.all_reduce(flat, async_op=True).get_future().wait())


def never_waits(model, bucket_bytes):
    start_equal(model)
    kept = []

    def send(bucket):
        flat = flat_of(bucket) / dist.get_world_size()
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p)
        kept.append(dist.all_reduce(flat, async_op=True))

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), send, nothing)
    return model


def overlap_for_show(model, bucket_bytes):
    """Sends a copy from the hook, and the gradients after backward."""
    start_equal(model)
    full, shown = [], []

    def send(bucket):
        full.append(bucket)
        shown.append(dist.all_reduce(flat_of(bucket), async_op=True))

    def finish():
        for work in shown:
            work.wait()
        for bucket in full:
            flat = flat_of(bucket)
            dist.all_reduce(flat)
            back(bucket, flat, dist.get_world_size())
        full.clear()
        shown.clear()

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), send, finish)
    return model


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "after backward": (
        after_backward,
        "overlap",
        "every all_reduce was issued after the last layer's backward: nothing overlaps",
    ),
    "after backward, at once": (
        after_backward_at_once,
        "overlap",
        "every all_reduce was issued after the last layer's backward",
    ),
    "blocking": (blocking_in_hook, "overlap", "stood still for 3 of 3 all_reduce that it issued during backward"),
    "blocking on a future": (waits_for_future_in_hook, "overlap", "stood still for 3 of 3 all_reduce that it issued"),
    "never waits": (never_waits, "overlap", "all_reduce were still under way"),
    "overlap for show": (
        overlap_for_show,
        "traffic",
        "at 4 ranks: rank 0 sent 2,928 B in step 0, the all-reduce of all",
    ),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
