"""A structured MLP pruned to a quarter against the dense and the masked one: a training step, and what it sends.

    python benchmarks/structured.py [--width 1024] [--batch 256]

One MLP of three hidden layers, in five forms: dense; pruned to a quarter of its weights, which is half of its hidden
neurons; and pruned to a quarter of its neurons. Both are there *masked*, with zeros held in matrices of the old shape,
and *cut*, in smaller matrices; they compute the same numbers. A step is forward, backward and SGD at equal batch, and
the forms step in turns in one process; who goes first changes each turn. What DDP sends is counted at the door of 2
ranks, beside its formula. The limit is 2.0: dense time over that of either cut form.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from parallel_lab import launch
from parallel_lab.compress import Masks, formulas
from parallel_lab.compress.structured import choose, cut, mask_of, neurons
from parallel_lab.data_parallel import DDP
from parallel_lab.model import build, loss
from parallel_lab.trace import span

INPUTS, CLASSES, HIDDEN = 64, 10, 3
TURNS, WARM_UP = 30, 5
LEAST, RANKS = 2.0, 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRUNED = {"a quarter of the weights": 0.5, "a quarter of the neurons": 0.75}  # the share of neurons that goes
FORMS = ("dense", *(f"{how}, {what}" for what in PRUNED for how in ("masked", "cut")))


def forms(width: int, device: str) -> dict[str, tuple[nn.Module, Masks]]:
    """Each form's model and masks."""
    model = build((INPUTS, *(width,) * HIDDEN, CLASSES)).to(device)
    made: list[tuple[nn.Module, Masks]] = [(deepcopy(model), Masks())]
    for sparsity in PRUNED.values():
        kept = choose(model, neurons(model), sparsity)
        made += [(deepcopy(model), mask_of(model, kept)), (cut(model, kept), Masks())]
    return dict(zip(FORMS, made, strict=True))


def batch(model: nn.Module, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels where the model is."""
    generator = torch.Generator().manual_seed(0)
    images, labels = (
        torch.rand(size, INPUTS, generator=generator),
        torch.randint(CLASSES, (size,), generator=generator),
    )
    like = next(model.parameters())
    return images.to(like), labels.to(like.device)


def stepper(model: nn.Module, masks: Masks, size: int) -> Callable[[], torch.Tensor]:
    """A step of SGD with masks held; the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = batch(model, size)
    masks.hold(model, optimizer)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        of_batch = loss(model(images), labels)
        of_batch.backward()
        optimizer.step()
        return of_batch.detach()

    return step


def in_turns(width: int, size: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each step of each form, but for those that warm up; how far losses of masked and cut are apart."""
    steps = {name: stepper(*form, size) for name, form in forms(width, DEVICE).items()}
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    losses: dict[str, torch.Tensor] = {}
    for turn in range(TURNS + WARM_UP):
        for place in range(len(FORMS)):
            name = FORMS[(turn + place) % len(FORMS)]
            _finish()
            began_s = time.perf_counter()
            losses[name] = steps[name]()
            _finish()
            times[name].append(time.perf_counter() - began_s)
    apart = max(float((losses[f"masked, {what}"] - losses[f"cut, {what}"]).abs()) for what in PRUNED)
    return {name: each[WARM_UP:] for name, each in times.items()}, apart


def _finish() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def send(width: int) -> None:
    """A data-parallel backward pass of each form."""
    for name, (model, _) in forms(width, "cpu").items():
        ddp = DDP(model)
        images, labels = batch(model, RANKS)
        with span(name):
            loss(ddp(images), labels).backward()


def sent_bytes(width: int) -> dict[str, int]:
    """What rank 0 sends in it."""
    spans = launch(send, width, ranks=RANKS, device="cpu", timeout=300, echo=False).trace.of(0)
    within = {s.kind: s for s in spans if s.kind in FORMS}
    return {
        name: sum(s.sent_bytes for s in spans if one.start_s <= s.start_s < one.end_s) for name, one in within.items()
    }


def main() -> None:
    """Prints a row for each form; exits with 1 where the limit is missed, or a form is not what it should be."""
    parser = argparse.ArgumentParser(description="a structured MLP against the dense and the masked one")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    width, size = (options := parser.parse_args()).width, options.batch
    times, apart = in_turns(width, size)
    sent, models = sent_bytes(width), forms(width, "cpu")
    unit = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} cores"
    print(f"{HIDDEN} hidden layers of {width}, batch {size}, {unit}; losses of masked and cut apart: {apart:.0e}\n")
    print("| form | ms a step | dense / form (quartiles) | parameters | sent a step at 2 ranks | by its formula |")
    print("|---|---|---|---|---|---|")
    middles = {}
    for name in FORMS:
        low, middles[name], high = statistics.quantiles(
            [a / b for a, b in zip(times["dense"], times[name], strict=True)], n=4
        )
        count = sum(p.numel() for p in models[name][0].parameters())
        expected = formulas.data_parallel_bytes(count, RANKS)
        took = 1000 * statistics.median(times[name])
        ratio = f"{middles[name]:.2f} ({low:.2f}-{high:.2f})"
        print(f"| {name} | {took:.2f} | {ratio} | {count:,} | {sent[name]:,} | {expected:,.0f} |", flush=True)
        if sent[name] != expected:
            sys.exit(f"{name} sent {sent[name]:,} bytes and should send {expected:,.0f}")
    sys.exit(min(middles[f"cut, {what}"] for what in PRUNED) < LEAST or apart > 1e-4)


if __name__ == "__main__":
    main()
