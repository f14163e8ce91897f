"""What staleness does to the reward, with the importance ratio and without it, over seeds: a shipped table.

    python -m parallel_lab.systems.reinforcement.compare        # runs all of it, some minutes, and writes the table

Every run has the same number of updates, prompts and samples. So the table compares what a step teaches, and not what a
second does: how much more often a step ends is another matter (`train.step_s`).
"""

import csv
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from parallel_lab.systems.reinforcement.train import Settings, train_here
from parallel_lab.trace import progress

STALENESS, SEEDS = (0, 1, 2, 4, 8), range(8)
RATIOS: dict[str, float | None] = {"clipped": 0.2, "left out": None}
TABLE = "staleness.csv"


class Result(NamedTuple):
    """One run: the mean reward before any update, and of held-out prompts after the last."""

    staleness: int
    ratio: str
    seed: int
    before: float
    after: float


def run(staleness: int, ratio: str, seed: int) -> Result:
    """One run in this process."""
    trained = train_here(Settings(staleness=staleness, clip=RATIOS[ratio], seed=seed))
    before = train_here(Settings(steps=0, seed=seed)).held_out
    return Result(staleness, ratio, seed, round(before, 4), round(trained.held_out, 4))


def shipped() -> list[Result]:
    """The table in the package."""
    with files("parallel_lab.systems.reinforcement").joinpath(TABLE).open() as file:
        rows = csv.reader(line for line in file if not line.startswith("#"))
        return [Result(int(k), ratio, int(s), float(b), float(a)) for k, ratio, s, b, a in list(rows)[1:]]


def spread(results: Iterable[Result], staleness: int, ratio: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds of the reward after the last update."""
    after = [each.after for each in results if (each.staleness, each.ratio) == (staleness, ratio)]
    return mean(after), stdev(after)


def write(results: Iterable[Result], file: Path) -> None:
    """The table as it is shipped."""
    head = f"# Written by `python -m {__spec__.name}`. Rewards are shares of right answers.\n" if __spec__ else ""
    with file.open("w", newline="") as out:
        out.write(head)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Result._fields)
        writer.writerows(results)


def main() -> None:
    """Runs the whole table, and prints its means."""
    wanted = [(k, ratio, seed) for k in STALENESS for ratio in RATIOS for seed in SEEDS]
    results = [run(*each) for each in progress(wanted)]
    write(results, Path(__file__).parent / TABLE)
    for k in STALENESS:
        print(
            k, *[f"{ratio}: {m:.3f} +- {s:.3f}" for ratio in RATIOS for m, s in [spread(results, k, ratio)]], sep="  "
        )


if __name__ == "__main__":
    main()
