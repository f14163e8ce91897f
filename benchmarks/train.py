"""The training command at world 1 against a plain loop of the same model: tokens per second and MFU.

    python benchmarks/train.py            # GPT-2 of 124 M parameters in bfloat16, on a GPU
    python benchmarks/train.py --small    # a small one, on the CPU too

Ours is what `python -m parallel_lab.hybrid.train` runs for each step, checks and all: `parallelize` and `train_step` on
a layout of one rank, through the lab's process group. The plain loop is what one writes without any of it: the same
model, `torch.autocast` to the same dtype, logits in float32 for the loss (as torchtitan's loops have them, too), the
same fused AdamW, the same clipping, the same batches from pinned memory, and the loss looked at as seldom. A second
plain loop leaves the logits to autocast, which on a GPU takes the log-softmax in 16 bits: faster and less exact.

All live in one process and take turns of a few steps; who goes first changes each turn, and the clock stops when the
device is done. The ratio is the median over turns of the plain loop's time over ours: 1 means as fast, and to two
digits it must be that at least, beside the loop with the same loss. A small model is there to try the program: what a
step costs beside its products counts for much in it, and it has no limit.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from parallel_lab.hybrid import place
from parallel_lab.hybrid.options import parse
from parallel_lab.hybrid.progress import peak_flops
from parallel_lab.hybrid.train import Run
from parallel_lab.model import build
from parallel_lab.model import loss as cross_entropy
from parallel_lab.model.formulas import flops_per_token, parameter_count
from parallel_lab.trace.record import recorder

LEAST = 1.0
WARM_UP = 3  # turns in which kernels are chosen, memory is reserved and caches fill
LARGE = ["--preset", "gpt2-124m", "--dtype", "bfloat16", "--batch", "16", "--lr", "0.0003"]
SMALL = ["--width", "256", "--seq", "128", "--batch", "8"]

Step = Callable[[Tensor, Tensor], Tensor]


def plain(run: Run, wide: bool = True) -> Step:
    """A step of the plain loop, with the model, optimizer and dtype of `run`; `wide` takes the loss in float32."""
    device, cuda = run.device, run.device.type == "cuda"
    model = build(run.config, run.options.seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.options.lr, fused=cuda or None)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        if cuda:
            tokens, targets = tokens.pin_memory(), targets.pin_memory()
        tokens, targets = tokens.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        with torch.autocast(device.type, run.dtype, enabled=run.dtype != torch.float32):
            logits = model(tokens)
            loss = cross_entropy(logits.float() if wide else logits, targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), run.options.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def in_turns(run: Run, turns: int, steps: int) -> tuple[list[list[float]], list[float]]:
    """Seconds of each turn of all sides, without those that warm up; and how far the first two losses were apart."""
    sides: list[Step] = [lambda *batch: run.step(*batch).loss, plain(run), plain(run, wide=False)]
    batches, times, gaps = run.batches(), [[] for _ in sides], []
    for turn in range(turns + WARM_UP):
        mine, last = list(islice(batches, steps)), [torch.zeros(()) for _ in sides]
        for side in sorted(range(len(sides)), key=lambda side: (side + turn) % len(sides)):
            _finish(run.device)
            began_s = time.perf_counter()
            for batch in mine:
                last[side] = sides[side](*batch)
            _finish(run.device)
            times[side].append(time.perf_counter() - began_s)
        gaps.append(abs(float(last[0]) - float(last[1])))
    return [taken[WARM_UP:] for taken in times], gaps


def profiled(run: Run) -> None:
    """Prints the kernels of three steps of the command, and of the two plain loops."""
    batches = list(islice(run.batches(), WARM_UP + 3))
    sides = {"the command": lambda *batch: run.step(*batch).loss, "plain loop": plain(run)}
    for name, step in (sides | {"plain loop, loss in 16 bits": plain(run, wide=False)}).items():
        for batch in batches[:WARM_UP]:
            step(*batch)
        _finish(run.device)
        with torch.profiler.profile() as profile:
            for batch in batches[WARM_UP:]:
                step(*batch)
            _finish(run.device)
        by = f"self_{run.device.type}_time_total"
        print(name, profile.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60), sep="\n")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Measures and prints the table; 1 where ours is slower."""
    parser = argparse.ArgumentParser(description="the training command against a plain loop")
    parser.add_argument("--small", action="store_true", help="a small model; the default without a GPU")
    parser.add_argument("--turns", type=int, default=15, help="that are counted (15)")
    parser.add_argument("--steps", type=int, default=10, help="of a turn (10)")
    parser.add_argument("--batch", type=int, help="sequences of a step (16)")
    parser.add_argument("--profile", action="store_true", help="print which kernels three steps of each side spend on")
    o = parser.parse_args()
    small = o.small or not torch.cuda.is_available()
    batch = ["--batch", str(o.batch)] if o.batch else []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        total = ["--steps", str((o.turns + WARM_UP) * o.steps), "--out", folder]
        os.environ.update(place.variables({}))
        place.join(60.0)
        recorder().enabled = False
        run = Run(parse([*(SMALL if small else LARGE), *batch, *total]), held)
        if o.profile:
            profiled(run)
            return 0
        times, gaps = in_turns(run, o.turns, o.steps)
    ratio = report(run, times, gaps, o.steps)
    return int(not small and round(ratio, 2) < LEAST)


def report(run: Run, times: list[list[float]], gaps: list[float], steps: int) -> float:
    """Prints what was measured; how many times as fast as the plain loop ours is."""
    tokens = steps * run.options.batch * run.config.seq
    card = torch.cuda.get_device_name() if run.device.type == "cuda" else "the CPU"
    peak = peak_flops(run.device, run.dtype)
    print(
        f"{parameter_count(run.config):,} parameters, {run.options.dtype}, {run.options.batch} x {run.config.seq}"
        f" tokens a step, {card}, torch {torch.__version__}\n\n| | tokens/s | MFU |\n|---|---|---|"
    )
    told = []
    for name, taken in zip(("the command", "plain loop", "plain loop, loss in 16 bits"), times, strict=True):
        speed = tokens / statistics.median(taken)
        share = f"{100 * speed * flops_per_token(run.config) / peak:.1f} %" if peak else "no peak known"
        told.append(f"{speed:,.0f} tokens/s, MFU {share}")
        print(f"| {name} | {speed:,.0f} | {share} |")
    ratios = [statistics.quantiles([b / a for a, b in zip(times[0], other, strict=True)], n=4) for other in times[1:]]
    (low, ratio, high), (_, beside, _) = ratios
    print(f"\nlosses of the first two after each turn differ by {max(gaps):.1e} at most")
    print(
        f"the training command / a plain loop, speed: {ratio:.3f} (quartiles {low:.3f} to {high:.3f};"
        f" {told[0]} / {told[1]});"
        f" at least {LEAST:.2f}; beside one with the loss in 16 bits: {beside:.3f} ({told[2]})"
    )
    return ratio


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
