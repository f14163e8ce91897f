"""`bucketed_ddp`: the solution scores full marks, the stub none, each shortcut fails with its own message."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import data_parallel
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check, grade
from parallel_lab.course.exercises import EXERCISES
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "03_data_parallel"
NAME = "bucketed_ddp"
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
BUCKETS_OF = SOLUTIONS["buckets_of"]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def test_solution_scores_full_marks():
    report = check(NAME, SOLUTIONS[NAME])
    assert report.score == 1, repr(report)
    assert EXERCISES[NAME].solution_note in repr(report)


def test_untouched_stub_scores_nothing():
    stubs = functions_in(ROOT / "exercises" / f"{NOTEBOOK}.ipynb")
    report = check(NAME, stubs[NAME])
    assert report.score == 0
    assert not report.passed


def test_exercises_are_what_the_command_writes():
    written = (ROOT / "exercises" / f"{NOTEBOOK}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, NOTEBOOK)


def nothing(*_):
    return None


COUNT = []


def by_store(tensor, place, reduce=torch.sum):
    """The sum over ranks through the rendezvous store, which is C++ and passes the audit hook."""
    store, n = dist.distributed_c10d._get_default_store(), dist.get_world_size()
    store.set(f"{place}/{dist.get_rank()}", tensor.detach().numpy().tobytes())
    parts = [torch.frombuffer(bytearray(store.get(f"{place}/{r}")), dtype=tensor.dtype) for r in range(n)]
    return reduce(torch.stack(parts), 0).view(tensor.shape)


COUNT = []


# --- hooks whose parts the cheats replace


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


def blocking_in_hook(model, bucket_bytes, wait=lambda flat: dist.all_reduce(flat)):
    start_equal(model)

    def send(bucket):
        flat = flat_of(bucket)
        wait(flat)
        back(bucket, flat, dist.get_world_size())

    when_ready(BUCKETS_OF(last_first(model), bucket_bytes), send, nothing)
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


def buckets_for_show(model, bucket_bytes):
    COUNT.clear()

    def wait(flat):
        COUNT.append(1)
        right = by_store(flat, f"{len(COUNT)}")
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
        "at 4 ranks: rank 0 sent 2.928 kB in step 0, the all-reduce of all",
    ),
    "sum": (sum_not_mean, "numbers", "at 2 ranks: rank 0, step 0: the gradient of parameter 0: element"),
    "one message a parameter": (one_a_parameter, "buckets", "called 16 collectives a step; buckets of 10 kB make 4"),
    "one bucket": (one_bucket, "buckets", "at 2 ranks: rank 0 sent 38.4 kB at once; a bucket has 10 kB"),
    "through rank 0": (
        through_rank_0,
        "traffic",
        "at 4 ranks: rank 1 sent 1.952 kB in step 0, the all-reduce of all gradients sends",
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


@pytest.mark.parametrize(("cheat", "test", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, test, said):
    """The one grader that must see through it; a full check would run the others as well."""
    exercise = EXERCISES[NAME]
    telling = tuple(one for one in exercise.tests if one.__name__ == test)
    report = grade(replace(exercise, tests=telling), cheat, save=False)
    assert report.score == 0
    assert said in repr(report), repr(report)


class WaitsInLastHook(nn.Module):
    """Not a cheat: gradients are views of their bucket, and the hook of the very last gradient waits."""

    def __init__(self, model, bucket_bytes):
        super().__init__()
        start_equal(model)
        self.model, self.under_way = model, []
        self.buckets = BUCKETS_OF(last_first(model), bucket_bytes)
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


@pytest.mark.parametrize("answer", [reduce_in_hook, WaitsInLastHook])
def test_other_right_answers_pass(answer):
    report = check(NAME, answer)
    assert report.passed, repr(report)
