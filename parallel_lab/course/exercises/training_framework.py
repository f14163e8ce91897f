"""Chapter 03: the skeleton of a data-parallel training framework, question AC1.

Li et al. 2020, "PyTorch Distributed", section 3.1.

Every rank starts from the same weights, computes the gradient of its share of the global batch, and applies the same
averaged gradient; so all stay equal to one process that trains on the whole batch. One rank writes checkpoints.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from parallel_lab.course.driving import LR, network, run_framework
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.training import Chain, load, silent
from parallel_lab.course.training_checks import (
    ITEM_BYTES,
    TOLERANCE,
    expect_traffic,
    expect_used,
    marks,
    phases,
    same_tensors,
)
from parallel_lab.course.values import same

WIDTHS = (20, 40, 10)
MODEL_BYTES = (20 * 40 + 40 + 40 * 10 + 10) * ITEM_BYTES
ROWS = 60
MOMENTUM = 0.9
EVEN: dict[str, Any] = {"steps": 3, "batch": 12}
UNEVEN: dict[str, Any] = {"steps": 3, "batch": 11}  # shares of 4, 4, 3 at 3 ranks and 3, 3, 3, 2 at 4
MICRO: dict[str, Any] = {"steps": 4, "batch": 15, "microbatches": 3}  # shares of 8 and 7, in 3, 3, 2 and 3, 2, 2
RUN = ("run", "run_over")  # the marks round the call
BEFORE, AFTER = 2, 5  # steps at the checkpoint and at the end


def _run(fn: Callable, lab: Lab, ranks: int, options: dict, garbled: bool = False, again: bool = False, folders=()):
    driver = partial(run_framework, fn, widths=WIDTHS, garbled=garbled, folders=folders, **options)
    make = partial(network, widths=WIDTHS, rows=(ROWS,), again=again)
    return lab.run(driver, ranks, make, key=(tuple(options.items()), garbled, again, folders))


def _right(outcome: Outcome, steps: int, batch: int, skip: int = 0, start_at: Outcome | None = None, **_) -> None:
    """Against one process on the whole batches; the first `skip` losses belong to the run before."""
    xs, ys, _ = outcome.inputs[0]
    model = load(Chain(WIDTHS, note=silent), (start_at or outcome).inputs[0][2])
    optimizer, losses = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM), []
    for k in range(steps):
        rows = slice(k * batch, (k + 1) * batch)
        loss = F.cross_entropy(model(xs[0][rows]), ys[0][rows].argmax(1))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wanted = [p.detach() for p in model.parameters()]
    for rank, (got, weights) in enumerate(outcome.results):
        where = f"{outcome.at}: rank {rank}"
        if type(got) is not list or len(got) != steps - skip or not all(type(loss) is float for loss in got):
            seen = f"{len(got)} items" if isinstance(got, list) else f"a {type(got).__name__}"
            raise Wrong(f"{where} returned {seen}, expected a list of {steps - skip} losses, as floats")
        advice = "The mean over the global batch: with uneven shares that is not the mean of the ranks' means."
        same_tensors(weights, wanted, f"{where}, after {steps} steps", "parameter", advice)
        for k, (loss, right) in enumerate(zip(got, losses[skip:], strict=True)):
            pair = torch.tensor([[loss], [right]], dtype=torch.float64)
            same(pair[0], pair[1], f"{where}, loss of step {k}", advice, TOLERANCE)


def numbers(fn: Callable, lab: Lab) -> None:
    """Weights and losses are those of one process, on every rank, at 1, 2 and 3 ranks."""
    for ranks in (1, 2, 3):
        _right(_run(fn, lab, ranks, EVEN), **EVEN)


def uneven(fn: Callable, lab: Lab) -> None:
    """The same where the batch does not divide by the number of ranks, at 3 and 4."""
    for ranks in (3, 4):
        _right(_run(fn, lab, ranks, UNEVEN), **UNEVEN)


def shares(fn: Callable, lab: Lab) -> None:
    """Each rank runs its share of each batch through the model, and no more."""
    for ranks, options in ((2, EVEN), (3, UNEVEN), (4, UNEVEN)):
        outcome = _run(fn, lab, ranks, options)
        steps, batch = options["steps"], options["batch"]
        counts = [sum(_forwards(outcome, rank)) for rank in range(ranks)]
        for rank, ran in enumerate(counts):
            least, most = steps * (batch // ranks), steps * ceil(batch / ranks)
            if not least <= ran <= most:
                share = str(least) if least == most else f"{least} to {most}"
                seen = f"{outcome.at}: rank {rank} ran {ran} samples through the model, its share is {share}"
                raise Wrong(seen, "The ranks divide each global batch among them; sizes differ by one at most.")
        if sum(counts) != steps * batch:
            seen = f"{outcome.at}: the ranks ran {sum(counts)} samples through the model, there were {steps * batch}"
            raise Wrong(seen, "No sample is left out or taken twice: some shares are larger by one.")


def _forwards(outcome: Outcome, rank: int) -> list[int]:
    """The number of rows in each forward through the model, in order."""
    return [s.part for s in marks(phases(outcome, rank, *RUN)[0], "rows")]


def microbatches(fn: Callable, lab: Lab) -> None:
    """A share is run in microbatches, whose gradients add up and travel once."""
    outcome = _run(fn, lab, 2, MICRO)
    _right(outcome, **MICRO)
    count, steps = MICRO["microbatches"], MICRO["steps"]
    most = ceil(ceil(MICRO["batch"] / outcome.ranks) / count)
    for rank in range(outcome.ranks):
        rows = _forwards(outcome, rank)
        if len(rows) != steps * count or max(rows, default=0) > most:
            seen = f"{outcome.at}: rank {rank} called the model {len(rows)} times in {steps} steps"
            seen += f", with {max(rows, default=0)} rows"
            raise Wrong(
                f"{seen} at the most; {count} microbatches make {steps * count} times and {most} rows",
                "A microbatch bounds the activations that are held at once; it goes forward and backward by itself.",
            )
    once = steps * MODEL_BYTES  # 2 (n-1)/n at 2 ranks
    advice = "Add up the gradients of the microbatches first; only the sum has to travel."
    expect_traffic(outcome, once, once + 2 * MODEL_BYTES, f"{steps} all-reduces and the start send", advice, RUN)
    garbled = _run(fn, lab, 2, EVEN, garbled=True)
    expect_used(garbled, lambda: _right(garbled, **EVEN))


def checkpoint(fn: Callable, lab: Lab) -> None:
    """Rank 0 writes a checkpoint to its disk, which no other rank sees, and a new run goes on from it."""
    with tempfile.TemporaryDirectory(prefix="parallel-lab-") as root:
        folders = tuple(os.path.join(root, f"disk{rank}") for rank in range(2))
        for folder in folders:
            os.mkdir(folder)
        first = _run(fn, lab, 2, {"steps": BEFORE, "batch": 10}, folders=folders)
        _right(first, BEFORE, 10)
        at, there = first.at, [sorted(file.name for file in Path(folder).iterdir()) for folder in folders]
        if "checkpoint.pt" not in there[0]:
            raise Wrong(f"{at}: rank 0 left no file at `checkpoint`", "Write it when the last step is done.")
        if there[1] or len(there[0]) > 1:
            extra = there[1] or there[0]
            seen = f"{at}: rank {int(bool(there[1]))}'s disk has {', '.join(extra)}"
            raise Wrong(f"{seen}; one file, of rank 0, was asked for", "All ranks hold the same: one writes.")
        same_data = Lab(first.seeds, lab.timeout, lab.memory_bytes)
        second = _run(fn, same_data, 2, {"steps": AFTER, "batch": 10}, again=True, folders=folders)
        _right(second, AFTER, 10, skip=BEFORE, start_at=first)


EXERCISE = Exercise(
    name="training_framework",
    title="A data-parallel training framework",
    level="medium",
    minutes=60,
    tests=(numbers, uneven, shares, microbatches, checkpoint),
    notebook="03_data_parallel",
    timeout_s=8.0,
)
