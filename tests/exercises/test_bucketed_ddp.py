"""`bucketed_ddp`: answers that average wrongly, or communicate when nothing overlaps, fail with their messages."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch import nn

by_value(__name__)
NAME = "bucketed_ddp"
SOLUTION = solutions(NAME)


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

    when_ready(buckets or SOLUTION["buckets_of"](last_first(model), bucket_bytes), send, finish)
    return model


def blocking_in_hook(model, bucket_bytes, wait=lambda flat: dist.all_reduce(flat)):
    start_equal(model)

    def send(bucket):
        flat = flat_of(bucket)
        wait(flat)
        back(bucket, flat, dist.get_world_size())

    when_ready(SOLUTION["buckets_of"](last_first(model), bucket_bytes), send, nothing)
    return model


def sum_not_mean(model, bucket_bytes):
    return reduce_in_hook(model, bucket_bytes, by=1)


def one_bucket(model, bucket_bytes):
    return reduce_in_hook(model, bucket_bytes, buckets=[last_first(model)])


def torch_ddp_model(model, bucket_bytes):
    return nn.parallel.DistributedDataParallel(model, bucket_cap_mb=bucket_bytes / 2**20)


def after_backward(model, bucket_bytes):
    start_equal(model)
    full = []

    def finish():
        for bucket in full:
            flat = flat_of(bucket)
            dist.all_reduce(flat)
            back(bucket, flat, dist.get_world_size())
        full.clear()

    when_ready(SOLUTION["buckets_of"](last_first(model), bucket_bytes), full.append, finish)
    return model


def never_waits(model, bucket_bytes, keep=lambda work: work):
    start_equal(model)
    kept = []

    def send(bucket):
        flat = flat_of(bucket) / dist.get_world_size()
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p)
        kept.append(keep(dist.all_reduce(flat, async_op=True)))

    when_ready(SOLUTION["buckets_of"](last_first(model), bucket_bytes), send, nothing)
    return model


def keeps_futures(model, bucket_bytes):
    return never_waits(model, bucket_bytes, lambda work: work.get_future())


CHEATS = [  # (answer, the test that sees through it, what it says)
    (sum_not_mean, 0, "at 2 ranks: rank 0, step 0: the gradient of parameter 0: element"),
    (one_bucket, 3, "at 2 ranks: rank 0 sent 38.4 kB at once; a bucket has 10.0 kB"),
    (torch_ddp_model, 0, "torch_ddp_model uses DistributedDataParallel"),
    (after_backward, 4, "every all_reduce was issued after the last layer's backward: nothing overlaps"),
    (blocking_in_hook, 4, "stood still for 3 of 3 all_reduce that it issued during backward"),
    (never_waits, 4, "at 2 ranks: rank . never waited for the all_reduce with async_op=True"),
    (keeps_futures, 4, "all_reduce were still under way"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


class WaitsInLastHook(nn.Module):
    """Not a cheat: gradients are views of their bucket, and the hook of the very last gradient waits."""

    def __init__(self, model, bucket_bytes):
        super().__init__()
        start_equal(model)
        self.model, self.under_way = model, []
        self.buckets = SOLUTION["buckets_of"](last_first(model), bucket_bytes)
        self.missing = [len(bucket) for bucket in self.buckets]
        for number, bucket in enumerate(self.buckets):
            for p in bucket:
                p.register_post_accumulate_grad_hook(lambda _, number=number: self.ready(number))

    def forward(self, x):
        return self.model(x)

    def ready(self, number):
        self.missing[number] -= 1
        if self.missing[number] == 0:
            bucket = self.buckets[number]
            flat = flat_of(bucket) / dist.get_world_size()
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p)
            self.under_way.append(dist.all_reduce(flat, async_op=True))
        if not any(self.missing):
            for work in self.under_way:
                work.wait()
            self.under_way.clear()
            self.missing = [len(bucket) for bucket in self.buckets]


def test_another_right_answer_passes():
    assert_passes(NAME, WaitsInLastHook)


def one_by_one(model, bucket_bytes):
    start_equal(model)

    def average(p):
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()

    for p in last_first(model):
        p.register_post_accumulate_grad_hook(average)
    return model


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (one_by_one, "at 2 ranks: rank 0 called 16 collectives per step; buckets of 10.0 kB make 4"),
    (after_backward, "every all_reduce was issued after the last layer's backward: nothing overlaps"),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])
