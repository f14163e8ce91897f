"""What 16 bits gain on the unit that is here: matrix products, and training steps of a GPT, against float32.

    python benchmarks/precision.py            # on a GPU, GPT-2 of 124 M parameters; on the CPU, small ones
    python benchmarks/precision.py --cpu      # on the CPU in any case

Sides live in one process and take turns of a few steps; who goes first changes each turn. A ratio is the median over
turns of the time in float32 over that in 16 bits: 2 means twice as fast. bfloat16 is `MixedPrecision` with float32
weights, and the same fused AdamW on all sides. On the CPU one thread computes, and the clock is the processor's, so
that other programs do not count. On a GPU float32 runs twice: as PyTorch does by default, and with TF32, which rounds
the factors of a product to 11 bits and is no float32. The limit, 2 times as fast as float32, holds there for the
former. On the CPU there is none: some have instructions for bfloat16, and others convert.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from parallel_lab.hybrid.options import PRESETS
from parallel_lab.model import GPTConfig, build
from parallel_lab.model import loss as cross_entropy
from parallel_lab.model.data import text_batches
from parallel_lab.model.formulas import flops_per_token, parameter_count
from parallel_lab.precision import MixedPrecision, Policy
from parallel_lab.precision.unit import product_s, unit

LEAST = 2.0
WARM_UP = 2  # turns in which kernels are chosen and caches fill
WIDE = "float32"
Step = Callable[[Tensor, Tensor], Tensor]


class Side(NamedTuple):
    """One way to train: a step, and how float32 products are computed in it."""

    step: Step
    matmul: str = "highest"


def side(config: GPTConfig, device: torch.device, compute: torch.dtype, matmul: str = "highest") -> Side:
    """A model of its own, in `compute`, and its optimizer."""
    model = MixedPrecision(build(config).to(device), Policy(compute=compute))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(tokens), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Side(step, matmul)


def in_turns(sides: dict[str, Side], batches: list[tuple[Tensor, Tensor]], turns: int) -> dict[str, list[float]]:
    """Seconds of each turn of each side, without those that warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    clock = time.perf_counter if batches[0][0].is_cuda else time.process_time
    for turn in range(turns + WARM_UP):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            torch.set_float32_matmul_precision(sides[name].matmul)
            began_s = clock()
            for batch in batches:
                sides[name].step(*batch)
            if batches[0][0].is_cuda:
                torch.cuda.synchronize()
            times[name].append(clock() - began_s)
    return {name: taken[WARM_UP:] for name, taken in times.items()}


def ratios(times: dict[str, list[float]], over: str) -> tuple[float, float, float]:
    """The quartiles over turns of the time in float32 over that of side `over`."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times[WIDE], times[over], strict=True)], n=4)
    return low, middle, high


def products(device: torch.device, sizes: tuple[int, ...]) -> None:
    """The table of matrix products."""
    print("\n| product of | float32, ms | bfloat16, times as fast | float16, times as fast |\n|---|---|---|---|")
    for size in sizes:
        wide, *narrow = (
            product_s(dtype, size, device=device) for dtype in (torch.float32, torch.bfloat16, torch.float16)
        )
        print(f"| {size} x {size} | {1e3 * wide:.2f} | " + " | ".join(f"{wide / each:.3g}" for each in narrow) + " |")


def steps(config: GPTConfig, batch: int, device: torch.device, turns: int, in_a_turn: int) -> float:
    """Prints the rows of one model; how many times as fast bfloat16 is."""
    made = {WIDE: side(config, device, torch.float32), "bfloat16": side(config, device, torch.bfloat16)}
    if device.type == "cuda":
        made["float32 with TF32"] = side(config, device, torch.float32, "high")
    batches = [(x.to(device), y.to(device)) for x, y in islice(text_batches(config.seq, batch, in_a_turn), in_a_turn)]
    times = in_turns(made, batches, turns)
    tokens = in_a_turn * batch * config.seq
    for name, taken in times.items():
        speed = tokens / statistics.median(taken)
        low, ratio, high = ratios(times, name) if name != WIDE else (1.0, 1.0, 1.0)
        flops = f"{speed * flops_per_token(config) / 1e12:.3g}"
        print(
            f"| {parameter_count(config):,}, width {config.width} | {name} | {speed:,.0f} | {flops} |"
            f" {ratio:.2f} ({low:.2f} to {high:.2f}) |",
            flush=True,
        )
    return ratios(times, "bfloat16")[1]


def main() -> int:
    """Measures and prints the tables; 1 where a GPU gains less than the limit."""
    parser = argparse.ArgumentParser(description="16 bits against float32")
    parser.add_argument("--cpu", action="store_true", help="on the CPU; the default without a GPU")
    parser.add_argument("--small", action="store_true", help="one small model, on the CPU: to try the program")
    parser.add_argument("--turns", type=int, default=7, help="that are counted (7)")
    parser.add_argument("--steps", type=int, default=2, help="of a turn (2)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (8)")
    o = parser.parse_args()
    device = torch.device("cpu" if o.cpu or o.small or not torch.cuda.is_available() else "cuda")
    if device.type == "cpu":
        torch.set_num_threads(1)
    sizes = (256, 512, 1024) if device.type == "cpu" else (1024, 4096, 8192)
    print(f"{unit(device)}; torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    products(device, sizes[:1] if o.small else sizes)
    print("\n| parameters | in | tokens/s | TFLOP/s | times as fast as float32 (quartiles) |\n|---|---|---|---|---|")
    if device.type == "cpu":
        for width in (64,) if o.small else (64, 256, 512):
            ratio = steps(GPTConfig(seq=64, width=width, layers=2, heads=8), o.batch, device, o.turns, o.steps)
        print(f"\na step of width {width} in bfloat16 is {ratio:.2f} times as fast as in float32; the CPU has no limit")
        return 0
    ratio = steps(PRESETS["gpt2-124m"], o.batch, device, o.turns, o.steps)
    print(f"\na step in bfloat16 is {ratio:.2f} times as fast as in float32; the limit is {LEAST}")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
