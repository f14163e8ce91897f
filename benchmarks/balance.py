"""Balance inside a job: cuts of real lengths against the lower bound, and ways to balance with a slow rank.

    python benchmarks/balance.py

First, 20 batches each of lengths of Python's help, a byte a token, on 8 ranks: how far the rank with the most is above
the lower bound, by tokens and by work at width 64. Of 256 paragraphs, LPT and differencing must stay within 3 %. Beside
them stand 32 paragraphs, cut at 512: with four sequences a rank the worst batches are further away. And 64 pages, of
which one is often longer than a rank's mean share: then the longest is the bound, and LPT meets it.

Then real ranks with a slow one, emulated by `Delay`: 4 ranks, of which one takes twice as long for a unit of work; 56
microbatches of a small MLP, each a unit. The step is the busy time of the slowest, the best of 3, beside what the
formula says without Python, and all gradients are compared with one process. Shares by speed, a queue and stealing must
take at most 0.75 of the time of equal shares; samples divide, so 1 / 1.75 = 0.571 is the best. Last, training that
begins with equal shares and measures: the median step of its first 4 steps, and of the last 4.
"""

import sys
from functools import partial
from itertools import chain
from statistics import median

import torch
from torch import Tensor

from parallel_lab import launch
from parallel_lab.model import reference
from parallel_lab.model.data import Batch, shard_sizes
from parallel_lab.model.gpt import loss
from parallel_lab.systems.balance import (
    adaptive,
    delays,
    measure,
    proportional,
    queued,
    sequences,
    shared,
    shares,
    stolen,
    work_queue,
)
from parallel_lab.systems.balance.measure import Way
from parallel_lab.trace.units import format_seconds, format_share, table

DRAWS, RANKS, WIDTH = 20, 8, 64
MOST, MOST_TIME = 0.03, 0.75
UNIT_S, ITEMS = (0.01, 0.01, 0.01, 0.02), 56
SPEEDS = [1 / seconds for seconds in UNIT_S]
STEPS, EVERY = 12, 4
KINDS = (("paragraph", 256, None), ("paragraph", 32, 512), ("topic", 64, None))


def cuts() -> bool:
    """Prints how far each rule is above the bound; whether the good ones keep the limit."""
    rows: dict[str, list[str]] = {"lengths": [], "evened out": [], "rule": [], "median": [], "worst": []}
    kept = True
    for kind, count, longest in KINDS:
        drawn = [sequences.draw(count, kind=kind, longest=longest, seed=seed) for seed in range(DRAWS)]
        of_work = [[sequences.work(length, WIDTH) for length in lengths] for lengths in drawn]
        for what, batches in (("tokens", drawn), ("work", of_work)):
            for name, rule in sequences.RULES.items():
                above = [sequences.excess(rule(costs, RANKS), costs) for costs in batches]
                said = f"{count} of {kind}" + f" to {longest}" * bool(longest)
                _append(rows, said, what, name, format_share(median(above)), format_share(max(above)))
                kept &= count < 256 or name not in ("LPT", "Karmarkar-Karp") or max(above) <= MOST
    print(table(rows), f"limit for LPT and Karmarkar-Karp, of 256: {format_share(MOST)}", sep="\n")
    return kept


def _append(rows: dict[str, list[str]], *cells: str) -> None:
    for row, cell in zip(rows.values(), cells, strict=True):
        row.append(cell)


def ways(model: torch.nn.Module, batch: list[Batch], whole: Tensor) -> bool:
    """Prints the steps of each way on real ranks with a slow one; whether the good ones keep the limit."""
    equal, fair, ones = shard_sizes(ITEMS, len(UNIT_S)), proportional(ITEMS, SPEEDS), [1] * ITEMS
    every: dict[str, tuple[Way, float]] = {
        "equal shares": (shared(equal), shares.step_s(equal, SPEEDS)),
        "shares by speed": (shared(fair), shares.step_s(fair, SPEEDS)),
        "queue": (queued(), max(work_queue.predicted(ones, UNIT_S)[1])),
        "queue, guided": (queued(work_queue.guided), max(work_queue.predicted(ones, UNIT_S, work_queue.guided)[1])),
        "stealing": (stolen(equal), 0.0),
    }
    rows: dict[str, list[str]] = {"way": [], "items": [], "step": [], "formula": [], "of equal": [], "waiting": []}
    took: dict[str, float] = {}
    for name, (way, formula_s) in every.items():
        runs = [measure(way, model, batch, UNIT_S) for _ in range(3)]
        best = min(runs, key=lambda run: run.step_s)
        took[name] = best.step_s
        for gradient in chain(*(run.gradients for run in runs)):
            torch.testing.assert_close(gradient, whole, rtol=1e-10, atol=1e-13)
        items, of_equal = " ".join(str(len(done.items)) for done in best.done), took[name] / took["equal shares"]
        formula = format_seconds(formula_s) if formula_s else "-"
        _append(rows, name, items, format_seconds(best.step_s), formula, f"{of_equal:.2f}", format_share(best.waiting))
    print(table(rows), f"limit for shares by speed, queue and stealing: {MOST_TIME} of equal shares", sep="\n")
    return all(took[name] <= MOST_TIME * took["equal shares"] for name in ("shares by speed", "queue", "stealing"))


def following(model: torch.nn.Module, samples: Batch) -> bool:
    """Prints the first and the last steps of training that measures; whether the last are short enough."""
    body = partial(adaptive, model, samples, torch.optim.SGD, steps=STEPS, every=EVERY, lr=0.1)
    run = launch(body, ranks=len(UNIT_S), faults=delays(UNIT_S), device="cpu")
    step_s = [max(steps[number].busy_s for steps in run.results) for number in range(STEPS)]
    first_s, last_s = median(step_s[:EVERY]), median(step_s[-EVERY:])
    first, last = run[0][0].shares, run[0][-1].shares
    print(
        f"measured every {EVERY} steps: {first} takes {format_seconds(first_s)}, {last} takes {format_seconds(last_s)}"
    )
    print(
        f"{last_s / first_s:.2f} of equal shares, limit {MOST_TIME}; {sum(step.moved for step in run[0])} samples moved"
    )
    return last_s <= MOST_TIME * first_s


def main() -> int:
    """Prints the tables; 1 where a limit is missed."""
    model, dice = reference.build((16, 16, 4), dtype=torch.float64), torch.Generator().manual_seed(0)
    x, y = torch.randn(2 * ITEMS, 16, generator=dice).double(), torch.randint(4, (2 * ITEMS,), generator=dice)
    loss(model(x), y).backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    batch = list(zip(x.split(2), y.split(2), strict=True))
    kept = [cuts(), ways(model, batch, whole), following(model, (x[:ITEMS], y[:ITEMS]))]
    print("limits kept" if all(kept) else "a limit is missed")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
