"""Makes the summaries of systems/energy from the original files: `tools/energy_tables.py FOLDER`."""

import csv
import sys
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from parallel_lab.systems.energy import tables

ROOM = Path(tables.__file__).parent
ZEUS = "# Made by tools/energy_tables.py from ml-energy/zeus, examples/research_reproducibility/zeus_nsdi23/trace"
ZEUS += " (commit 75a8b93), Apache-2.0.\n# You, Chung and Chowdhury, NSDI 2023. "
ACME = "# Made by tools/energy_tables.py from InternLM/AcmeTrace, util_pkl/gpu_power_{seren,kalos}.pkl"
ACME += " (commit 6d6ac9c), CC-BY-4.0.\n# Hu et al., NSDI 2024. "

_REACHED = (
    "V100: each batch of which every run arrived,\n# at the highest cap and at that of least energy; the best at all."
)


def main(folder: Path) -> None:
    """Writes the four files."""
    gpus = {gpu: tables.read_power(folder / f"zeus_power_{gpu}.csv") for gpu in ("v100", "a40")}
    epochs = tables.read_epochs(folder / "zeus_train.csv.gz")
    rows = [[gpu, *_short(tables.summary(table).values())] for gpu, table in gpus.items()]
    head = ["gpu", *tables.summary(gpus["v100"])]
    _write("savings.csv", ZEUS + "Over configurations: batch, workload, optimizer.", head, rows)
    _write("caps.csv", ZEUS + "Quartiles over configurations; the highest cap is 1.", _CAPS, _caps(gpus))
    found = [
        [each.workload, each.target, each.batch, *_short((each.limit_w, each.epochs, each.seconds, each.joules))]
        for workload, targets in tables.TARGETS.items()
        for target in targets
        for each in _kept(tables.reached(gpus["v100"], epochs, workload, target))
    ]
    head = ["workload", "target", "batch", "limit_w", "epochs", "seconds", "joules"]
    _write("reached.csv", ZEUS + _REACHED, head, found)
    draw = tables.read_distribution(folder / "acme_gpu_power_cdf.csv")
    rows = [
        [per_cent, *(_at(points, per_cent) for points in draw.values())] for per_cent in (*range(0, 100, 5), 99, 100)
    ]
    _write("draw.csv", ACME + "All GPUs, idle ones too.", ["per_cent", "seren_w", "kalos_w"], rows)


def _kept(points: Sequence[tables.Reached]) -> list[tables.Reached]:
    """Of each batch the highest cap and the one of least energy; of the best batch all caps."""
    best = min(points, key=lambda each: each.joules)
    least = {each.batch: min((p for p in points if p.batch == each.batch), key=lambda p: p.joules) for each in points}
    top_w = max(each.limit_w for each in points)
    return [p for p in points if p.limit_w == top_w or p is least[p.batch] or p.batch == best.batch]


_QUARTILES = [f"{what}_{q}" for what in ("time", "energy") for q in ("q25", "q50", "q75")]
_CAPS = ["gpu", "limit_w", "configurations", *_QUARTILES]


def _caps(gpus: dict) -> list[list]:
    made = []
    for gpu, table in gpus.items():
        both = [(row, max(rows, key=lambda each: each.limit_w)) for rows in table.values() for row in rows]
        for limit_w in sorted({row.limit_w for row, _ in both}):
            here = [(row.step_s / top.step_s, row.step_j / top.step_j) for row, top in both if row.limit_w == limit_w]
            cut = [quantiles(values, n=4, method="inclusive") for values in zip(*here, strict=True)]
            made.append([gpu, *_short((limit_w, len(here), *cut[0], *cut[1]))])
    return made


def _at(points: Sequence[tuple[float, float]], per_cent: float) -> float:
    return points[min(len(points) - 1, bisect_left([share for share, _ in points], per_cent))][1]


def _short(values) -> list[str]:
    return [f"{value:.7g}" for value in values]


def _write(name: str, head: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    with (ROOM / name).open("w", newline="") as file:
        file.write(head + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
