"""`bucketed_ddp`: shortcuts in numbers, bytes and buckets fail with their own messages."""

import copy
import sys

import cloudpickle
import pytest
import through_store
import torch
import torch.distributed as dist
from bucket_hooks import (
    BUCKETS_OF,
    back,
    blocking_in_hook,
    flat_of,
    last_first,
    reduce_in_hook,
    start_equal,
)
from grading import assert_found_out
from torch import nn

from parallel_lab import data_parallel
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "bucketed_ddp"


def sum_not_mean(model, bucket_bytes):
    return reduce_in_hook(model, bucket_bytes, by=1)


def one_a_parameter(model, bucket_bytes):
    return reduce_in_hook(model, bucket_bytes, buckets=[[p] for p in last_first(model)])


def one_bucket(model, bucket_bytes):
    return reduce_in_hook(model, bucket_bytes, buckets=[last_first(model)])


def through_rank_0(model, bucket_bytes):
    def wait(flat):
        dist.reduce(flat, 0)
        dist.broadcast(flat, 0)

    return blocking_in_hook(model, bucket_bytes, wait)


def weights_not_shared(model, bucket_bytes):
    saved = [p.detach().clone() for p in model.parameters()]
    reduce_in_hook(model, bucket_bytes)
    with torch.no_grad():
        for p, value in zip(model.parameters(), saved, strict=True):
            p.copy_(value)
    return model


def first_step_only(model, bucket_bytes):
    start_equal(model)
    buckets = BUCKETS_OF(last_first(model), bucket_bytes)
    missing = list(map(len, buckets))

    def ready(number):
        missing[number] -= 1
        if missing[number] == 0:
            flat = flat_of(buckets[number])
            dist.all_reduce(flat)
            back(buckets[number], flat, dist.get_world_size())

    for number, bucket in enumerate(buckets):
        for p in bucket:
            p.register_post_accumulate_grad_hook(lambda _, number=number: ready(number))
    return model


def copied_model(model, bucket_bytes):
    start_equal(model)
    return reduce_in_hook(copy.deepcopy(model), bucket_bytes)


def frozen_and_shared_forgotten(model, bucket_bytes):
    start_equal(model)
    everything = [p for layer in reversed(model.layers) for p in (layer.bias, layer.weight)]
    return reduce_in_hook(model, bucket_bytes, buckets=BUCKETS_OF(everything, bucket_bytes))


def local_gradients(model, bucket_bytes):
    start_equal(model)
    return model


COUNT = []


def buckets_for_show(model, bucket_bytes):
    COUNT.clear()

    def wait(flat):
        COUNT.append(1)
        right = through_store.add_up(flat, f"{len(COUNT)}")
        dist.all_reduce(flat)
        flat.copy_(right)

    return blocking_in_hook(model, bucket_bytes, wait)


def torch_ddp_model(model, bucket_bytes):
    return nn.parallel.DistributedDataParallel(model, bucket_cap_mb=bucket_bytes / 2**20)


def our_ddp_model(model, bucket_bytes):
    return data_parallel.DDP(model, bucket_bytes=bucket_bytes)


def recorder_cleared(model, bucket_bytes):
    reduce_in_hook(model, bucket_bytes)
    model.register_full_backward_hook(lambda *_: recorder().spans.clear())
    return model


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "sum": (sum_not_mean, "numbers", "at 2 ranks: rank 0, step 0: the gradient of parameter 0: element"),
    "one message a parameter": (one_a_parameter, "buckets", "called 16 collectives a step; buckets of 10.0 kB make 4"),
    "one bucket": (one_bucket, "buckets", "at 2 ranks: rank 0 sent 38.4 kB at once; a bucket has 10.0 kB"),
    "through rank 0": (
        through_rank_0,
        "traffic",
        "at 4 ranks: rank 1 sent 1,952 B in step 0, the all-reduce of all gradients sends",
    ),
    "weights not shared": (
        weights_not_shared,
        "numbers",
        "at 2 ranks: rank 1, after bucketed_ddp(): parameter 0: element",
    ),
    "first step only": (first_step_only, "numbers", "at 2 ranks: rank 0, step 1: the gradient of parameter 0: element"),
    "a copy of the model": (copied_model, "numbers", "at 1 rank: rank 0, step 0: the gradient of parameter 0 is None"),
    "frozen and shared": (frozen_and_shared_forgotten, "tied_and_frozen", "at 3 ranks: "),
    "no exchange": (local_gradients, "numbers", "at 2 ranks: rank 0, step 0: the gradient of parameter 0: element"),
    "collectives for show": (buckets_for_show, "traffic", "changed on the way, and every rank was still right"),
    "torch's": (
        torch_ddp_model,
        "numbers",
        "used torch.nn.parallel.distributed.DistributedDataParallel, the answer itself",
    ),
    "ours": (our_ddp_model, "numbers", "our_ddp_model uses parallel_lab.data_parallel"),
    "recorder cleared": (recorder_cleared, "traffic", "what the grader noted is gone"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
