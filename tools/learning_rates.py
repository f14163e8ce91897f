"""The learning rate of each strategy: every rate on ten seeds, that no comparison of chapter 04 uses.

    python tools/learning_rates.py > parallel_lab/synchronization/rates.csv

Four workers train in virtual time. In the tasks `digits` and `text` one of them takes three times as long as the
others, and 240 gradients are used; the loss is taken at the end and after 72 simulated seconds, since the best rate of
one need not be that of the other. In the task `rounds` the workers are equal, exchange seldom, and use 384 gradients.
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.model import GPTConfig
from parallel_lab.synchronization import LocalSteps, OuterSteps, Synchronous, compare
from parallel_lab.synchronization.virtual import Strategy

SEEDS = range(100, 110)
SMALL = GPTConfig(seq=16, layers=1, heads=2, width=16)
MEAN, OUTER = (
    {f"H={every} mean": LocalSteps(every) for every in (4, 16)},
    {
        f"H={every} {outer_lr} {momentum}": OuterSteps(every, outer_lr, momentum)
        for every, outer_lr, momentum in ((4, 0.7, 0.9), (4, 0.3, 0.9), (16, 0.7, 0.9), (16, 0.3, 0.9), (16, 0.7, 0.5))
    },
)
ROUNDS = [(rate, MEAN | OUTER | {"every step": Synchronous()}) for rate in (0.002, 0.004, 0.008, 0.016, 0.032)]
SERVED = ("synchronous", "asynchronous", "stale", "partial")


def sgd(rate: float) -> compare.Task:
    """Digits with SGD."""
    return compare.digits(16, options={"lr": rate})


def adam(rate: float) -> compare.Task:
    """Digits with AdamW."""
    return compare.digits(16, torch.optim.AdamW, options={"lr": rate})


def text(rate: float) -> compare.Task:
    """Text with AdamW."""
    return compare.language(8, SMALL, torch.optim.AdamW, options={"lr": rate})


def rows(
    name: str, task: compare.Task, rate: float, chosen: Mapping[str, Strategy], seed: int, **settings
) -> list[str]:
    """For each strategy the loss at the end, and the last one before 72 simulated seconds."""
    found = []
    for strategy, (curve,) in compare.curves(task, chosen, [seed], **settings).items():
        early = [loss for at_s, loss in zip(curve.seconds, curve.losses, strict=True) if at_s <= 72]
        found.append(f"{name},{strategy},{rate},{seed},{curve.losses[-1]:.4f},{early[-1]:.4f}")
    return found


def of_seed(seed: int) -> list[str]:
    """All rows of one seed."""
    served = {name: compare.strategies(4)[name] for name in SERVED}
    found: list[str] = []
    for rate in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        found += rows("digits SGD", sgd(rate), rate, served, seed, slow=3.0, points=20)
    for rate in (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08):
        found += rows("digits AdamW", adam(rate), rate, served, seed, slow=3.0, points=20)
    for rate in (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064):
        found += rows("text AdamW", text(rate), rate, served, seed, slow=3.0, points=20)
    for rate, seldom in ROUNDS:
        found += rows("rounds", text(rate), rate, seldom, seed, updates=384, points=6)
    return found


def on_this_rank() -> list[str]:
    """The rows of this rank's seeds."""
    return [row for seed in list(SEEDS)[dist.get_rank() :: dist.get_world_size()] for row in of_seed(seed)]


if __name__ == "__main__":
    parts = launch(on_this_rank, ranks=2, timeout=36_000).results
    print("task,strategy,rate,seed,loss,loss_72s")
    print(*sorted(row for part in parts for row in part), sep="\n")
