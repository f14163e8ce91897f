"""Chapter 03: data parallelism with buckets that are all-reduced while backward still runs.

Li et al. 2020, "PyTorch Distributed", section 3.2.

Gradients become ready last layer first. As soon as a bucket of them is full it can travel, beside the backward of the
layers before. A rank sends 2 (n-1)/n of the gradients, in one message train a bucket instead of one a parameter.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.course.driving import LR, network, train_ddp
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.training import Chain, load, silent
from parallel_lab.course.training_checks import (
    ITEM_BYTES,
    expect_overlap,
    expect_traffic,
    expect_used,
    gradients,
    phases,
    same_tensors,
    sent,
)
from parallel_lab.runtime import Link
from parallel_lab.trace.units import format_bytes as size

SMALL = {"widths": (5, 7, 7, 3), "tied": False, "bucket_bytes": 400}
SHARED = {"widths": (3, 6, 6, 6, 2), "tied": True, "bucket_bytes": 300}  # a tied weight and a frozen bias
DEEP = {"widths": (24,) * 9, "tied": False, "bucket_bytes": 10_000}  # 8 layers of 4.8 kB: two a bucket
SMALL_BYTES = (5 * 7 + 7 + 7 * 7 + 7 + 7 * 3 + 3) * ITEM_BYTES
DEEP_BYTES = 8 * (24 * 24 + 24) * ITEM_BYTES
BUCKETS = 4
SLOW = Link(bytes_per_s=240_000)  # at 2 ranks a bucket takes 40 ms, and a layer's backward some 0.1 ms
OVERLAPPED = 0.5  # all but the first layers' bucket can overlap: 3 of 4


def _run(fn: Callable, lab: Lab, ranks: int, settings: dict, garbled: bool = False, **options) -> Outcome:
    steps = 1 if settings is DEEP else 2
    make = partial(network, rows=(4, 2, 3), steps=steps, widths=settings["widths"], tied=settings["tied"])
    driver = partial(train_ddp, fn, garbled=garbled, **settings)
    return lab.run(driver, ranks, make, key=(settings["widths"], garbled), **options)


def _right(outcome: Outcome, settings: dict) -> None:
    """Against one process: the mean over ranks of the gradient of each rank's own loss, step by step."""
    initial = outcome.inputs[0][2]
    for rank, (built, _, _) in enumerate(outcome.results):
        where = f"{outcome.at}: rank {rank}, after bucketed_ddp()"
        same_tensors(built, initial, where, "parameter", "All ranks start with the weights of rank 0.")
    model = load(Chain(settings["widths"], settings["tied"], frozen=settings["tied"], note=silent), initial)
    batches = [(xs, ys) for xs, ys, _ in outcome.inputs]
    for step in range(len(batches[0][0])):
        mean = _oracle(model, [(xs[step], ys[step]) for xs, ys in batches])
        for rank, (_, seen, _) in enumerate(outcome.results):
            advice = "When backward() returns, .grad is the mean over ranks of each rank's gradient."
            same_tensors(
                seen[step], mean, f"{outcome.at}: rank {rank}, step {step}", "the gradient of parameter", advice
            )
    for rank, (_, _, final) in enumerate(outcome.results):
        right = [p.detach() for p in model.parameters()]
        same_tensors(final, right, f"{outcome.at}: rank {rank}, at the end", "parameter")


def _oracle(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[Tensor | None]:
    """The mean over ranks of the gradient of each parameter, None where it does not learn; steps `model`."""
    losses = [F.mse_loss(model(x), y) for x, y in batches]
    learning = [p for p in model.parameters() if p.requires_grad]
    mean = dict(zip(learning, gradients(torch.stack(losses).mean(), learning), strict=True))
    with torch.no_grad():
        for p, gradient in mean.items():
            p -= LR * gradient
    return [mean.get(cast(nn.Parameter, p)) for p in model.parameters()]


def numbers(fn: Callable, lab: Lab) -> None:
    """After backward() every rank has the mean gradient, at 1, 2 and 4 ranks, step after step."""
    for ranks in (1, 2, 4):
        _right(_run(fn, lab, ranks, SMALL), SMALL)


def tied_and_frozen(fn: Callable, lab: Lab) -> None:
    """A weight that two layers share counts once, and a frozen parameter gets no gradient, at 3 ranks."""
    _right(_run(fn, lab, 3, SHARED), SHARED)


def traffic(fn: Callable, lab: Lab) -> None:
    """Each rank sends 2 (n-1)/n of the gradients a step, and they carry the data."""
    advice = "Each gradient travels once a step, and nothing else does."
    for outcome, size_bytes in (
        (_run(fn, lab, 4, SMALL), SMALL_BYTES),
        (_run(fn, lab, 2, DEEP, link=SLOW), DEEP_BYTES),
    ):
        ring = 2 * (outcome.ranks - 1) * size_bytes / outcome.ranks
        expect_traffic(outcome, ring - 64, ring + 64, "the all-reduce of all gradients sends", advice)
    garbled = _run(fn, lab, 2, SMALL, garbled=True)
    expect_used(garbled, lambda: _right(garbled, SMALL))


def buckets(fn: Callable, lab: Lab) -> None:
    """Small gradients travel together, in buckets of `bucket_bytes` at the most."""
    outcome = _run(fn, lab, 2, DEEP, link=SLOW)
    most = DEEP["bucket_bytes"]
    for rank in range(outcome.ranks):
        for phase in phases(outcome, rank):
            moved = sent(phase)
            if big := [s for s in moved if s.bytes > most]:
                seen = f"{outcome.at}: rank {rank} sent {size(big[0].bytes)} at once; a bucket has {size(most)}"
                raise Wrong(seen, "A bucket that waits for all gradients cannot start before backward has ended.")
            if len(moved) > BUCKETS + 1:
                seen = f"{outcome.at}: rank {rank} called {len(moved)} collectives a step; buckets of {size(most)} make"
                raise Wrong(f"{seen} {BUCKETS}", "Each call costs its latency again: fill a bucket before you send it.")


def overlap(fn: Callable, lab: Lab) -> None:
    """Buckets travel while backward still runs."""
    outcome = _run(fn, lab, 2, DEEP, link=SLOW)
    advice = "The hook of the last gradient of a bucket is the moment to start its all-reduce."
    expect_overlap(outcome, OVERLAPPED, advice)
    _right(outcome, DEEP)


EXERCISE = Exercise(
    name="bucketed_ddp",
    title="Data parallelism with buckets and overlap",
    level="hard",
    minutes=60,
    tests=(numbers, tied_and_frozen, traffic, buckets, overlap),
    notebook="03_data_parallel",
    timeout_s=20.0,
)
