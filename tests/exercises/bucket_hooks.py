"""Hooks that average gradients bucket by bucket; the cheats of `bucketed_ddp` replace parts of them."""

import sys

import cloudpickle
import torch
import torch.distributed as dist
from grading import solutions

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BUCKETS_OF = solutions("03_data_parallel")["buckets_of"]


def nothing(*_):
    return None


def start_equal(model):
    for p in model.parameters():
        dist.broadcast(p.data, 0)


def flat_of(bucket):
    return torch.cat([p.grad.flatten() for p in bucket])


def back(bucket, flat, by):
    for p, part in zip(bucket, (flat / by).split([p.numel() for p in bucket]), strict=True):
        p.grad.copy_(part.view_as(p))


def when_ready(buckets, do, over):
    """Calls do(bucket) when a bucket's gradients are there and over() at the end of each backward."""
    missing = []

    def ready(number):
        if not missing:
            missing.extend(map(len, buckets))
            torch.autograd.Variable._execution_engine.queue_callback(end)
        missing[number] -= 1
        if missing[number] == 0:
            do(buckets[number])

    def end():
        missing.clear()
        over()

    for number, bucket in enumerate(buckets):
        for p in bucket:
            p.register_post_accumulate_grad_hook(lambda _, number=number: ready(number))


def last_first(model):
    return list(reversed([p for p in model.parameters() if p.requires_grad]))


def reduce_in_hook(model, bucket_bytes, by=None, buckets=None):
    start_equal(model)
    under_way = []

    def send(bucket):
        flat = flat_of(bucket)
        under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))

    def finish():
        for bucket, flat, work in under_way:
            work.wait()
            back(bucket, flat, by or dist.get_world_size())
        under_way.clear()

    when_ready(buckets or BUCKETS_OF(last_first(model), bucket_bytes), send, finish)
    return model


def blocking_in_hook(model, bucket_bytes, wait=lambda flat: dist.all_reduce(flat)):
    start_equal(model)

    def send(bucket):
        flat = flat_of(bucket)
        wait(flat)
        back(bucket, flat, dist.get_world_size())

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), send, nothing)
    return model
