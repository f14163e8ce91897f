"""Predicted memory beside what runs recorded: Megatron-LM's goldens, BigScience's sweep, Zero Bubble's table 4.

    python -m parallel_lab.planner.recorded [FILE]

FILE has the form of `published.yaml` (tables with id, columns and rows); without it the rows are those that this course
ships, one of Megatron-LM's goldens for each set of arguments. It prints for each table how far the prediction is off,
which rows are more than 5 % off, and those that are left out, with the reason. Runs that did not fit are rows without a
time whose note says so.

Which goldens are left out, and how the others are read from their names, was decided with their numbers in view (see
`goldens`): the errors say how well the rows can be explained, and not how well unseen ones are predicted.

What the sources leave open is said here once, and holds for all rows of a table:

    BigScience   DeepSpeed's stage 1 in 16 bits, all activations recomputed, attention not fused, A100 with 80 GB. It
                 keeps a flat copy of the gradients, and the optimizer one in float32 (6 + 16/n bytes a parameter)
    Zero Bubble  the sizes of its table 3; 16 bytes a parameter, which both models then agree with, where 18 would be
                 8 % above one of them; attention not fused; interleaved with a layer in each chunk
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from parallel_lab.planner.clusters import cluster
from parallel_lab.planner.goldens import between_steps, predicted, read, unexplained
from parallel_lab.planner.memory import fits, memory
from parallel_lab.planner.models import Model
from parallel_lab.planner.scheme import Scheme
from parallel_lab.trace.units import table

TOLERANCE = 0.05
ZERO_BUBBLE = {"1.5B": (22, 24, 2304, 6), "14.6B": (46, 40, 5120, 1)}  # layers, heads, width, microbatch
SCHEDULE_OF = {"1F1B": "1f1b", "ZB-1p": "zb_h1", "ZB-2p": "zb_h2", "1F1B-I": "interleaved"}
GPT = {"bias": True, "norm": "layer", "gated": False, "dropout": 0.1}
MISPRINTS = {
    (13824, 84, 6, 2): "65 GB, and 56 GB with twice the microbatch: one of them is not what ran",
    (14336, 72, 12, 2): "stage 0, whose step makes copies that are not known",
}
"""Of BigScience's rows: width, layers, pp, microbatch; the second only in stage 0."""


class Row(NamedTuple):
    """A row of a table beside its prediction.

    Attributes:
        table, name: where it stands.
        recorded_bytes, predicted_bytes: at most.
        resting: recorded and predicted between steps, where the table has it.
        why: it is left out; empty if it is not.
    """

    table: str
    name: str
    recorded_bytes: float
    predicted_bytes: float
    resting: tuple[float, float] | None = None
    why: str = ""

    @property
    def off(self) -> float:
        """Predicted over recorded, less 1."""
        return self.predicted_bytes / self.recorded_bytes - 1


class Fitting(NamedTuple):
    """Whether a run fitted, and whether that was predicted."""

    name: str
    fitted: bool
    predicted: bool


def golden_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Megatron-LM's goldens; `args_json` or `args` has the arguments."""
    for row in rows:
        args = json.loads(row.get("args_json") or row["args"])
        test = read(row["case"], row["golden"], args)
        resting = (float(row["mem_allocated_bytes"]), between_steps(test).value)
        why = unexplained(row["case"], row["golden"], args)
        recorded = float(row["mem_max_allocated_bytes"])
        yield Row("goldens", f"{row['case']} {row['golden']}", recorded, predicted(test).value, resting, why)


def bloom(row: Mapping[str, Any]) -> tuple[Model, Scheme]:
    """A row of BigScience's sweep."""
    shape = Model(
        vocab=250_000, seq=2048, layers=row["layers"], heads=row["heads"] or 64, width=row["hidden"], tied=True, **GPT
    )
    axes = {axis: row[axis] for axis in ("pp", "dp", "tp")}
    options: Any = {"recompute": "full", "precision": "fp16", "attention": "unfused", "states": "deepspeed"}
    zero, size = row["zero_stage"], row["mbs"]
    return shape, Scheme(**axes, zero=zero, microbatch=size, sequence_parallel=False, **options)


def bloom_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """BigScience's sweep, where it gives the layers and the memory."""
    for row in rows:
        if row["layers"] is None or row["mem_gb_max"] is None:
            continue
        shape, scheme = bloom(row)
        why = MISPRINTS.get((shape.width, shape.layers, scheme.pp, scheme.microbatch), "")
        why = "" if why.startswith("stage 0") and scheme.zero else why
        found = memory(shape, scheme, row["gbs"]).value
        name = f"{row['size']} h={shape.width} L={shape.layers} pp{scheme.pp} dp{scheme.dp} mbs{scheme.microbatch}"
        yield Row("bigscience", name, row["mem_gb_max"] * 1e9, found, why=why)


def bloom_fits(rows: Iterable[Mapping[str, Any]]) -> Iterator[Fitting]:
    """Of the same sweep, what fitted: rows that have a time did."""
    for row in rows:
        if row["layers"] is None or not all(row[name] for name in ("pp", "dp", "tp", "mbs", "gbs")):
            continue
        shape, scheme = bloom(row)
        fitted = row["sec_per_it"] is not None and "OOM" not in str(row.get("note"))
        name = f"{row['size']} h={shape.width} L={shape.layers} pp{scheme.pp} dp{scheme.dp} mbs{scheme.microbatch}"
        yield Fitting(name, fitted, fits(shape, scheme, row["gbs"], cluster("a100-jz", gpus=scheme.world)))


def zero_bubble_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Zero Bubble's table 4, for the models whose sizes stand here."""
    for row in rows:
        if row["model"] not in ZERO_BUBBLE or row["schedule"] not in SCHEDULE_OF:
            continue
        layers, heads, width, microbatch = ZERO_BUBBLE[row["model"]]
        shape = Model(vocab=50_257, seq=1024, layers=layers, heads=heads, width=width, positions="learned", **GPT)
        schedule: Any = SCHEDULE_OF[row["schedule"]]
        chunks = (layers + 2) // row["gpus"] if schedule == "interleaved" else 1
        plan = Scheme(pp=row["gpus"], microbatch=microbatch, schedule=schedule, chunks=chunks)
        plan = Scheme(**{**vars(plan), "states": "mixed", "attention": "unfused"})
        found = memory(shape, plan, row["m"] * microbatch).value
        yield Row("zero bubble", f"{row['model']} {row['schedule']} m={row['m']}", row["mem_gb"] * 1e9, found)


def shipped() -> list[dict[str, str]]:
    """The goldens that the course ships."""
    with files("parallel_lab.planner").joinpath("goldens.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def report(rows: Iterable[Row]) -> str:
    """How far the rows are off, table by table; those beyond the tolerance; and why some are left out."""
    found = list(rows)
    names = list(dict.fromkeys(row.table for row in found))
    kept = {name: [row for row in found if row.table == name and not row.why] for name in names}
    columns: dict[str, list[str]] = {"table": names, "rows": [], "within 5 %": [], "mean off": [], "left out": []}
    for name, some in kept.items():
        columns["rows"].append(str(len(some)))
        columns["within 5 %"].append(str(sum(abs(row.off) <= TOLERANCE for row in some)))
        columns["mean off"].append(f"{100 * sum(abs(row.off) for row in some) / max(1, len(some)):.2f} %")
        columns["left out"].append(str(sum(row.table == name and bool(row.why) for row in found)))
    lines = [table(columns), ""]
    lines += [f"{100 * row.off:+.1f} %  {row.name}" for row in found if not row.why and abs(row.off) > TOLERANCE]
    reasons = list(dict.fromkeys(row.why for row in found if row.why))
    return "\n".join([*lines, *(f"left out {sum(r.why == why for r in found)}: {why}" for why in reasons)])


def main(arguments: list[str]) -> None:
    """Prints the report of a file, or of the rows that the course ships."""
    if not arguments:
        print(report(golden_rows(shipped())))
        return
    tables = {each["id"]: each for each in yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))["tables"]}

    def rows(name: str) -> list[dict[str, Any]]:
        found = tables.get(name, {"columns": [], "rows": []})
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    sweep = rows("bloom_prequel_sweep")
    goldens = golden_rows(rows("megatron_golden_memory"))
    print(report([*goldens, *bloom_rows(sweep), *zero_bubble_rows(rows("zb_table4_throughput"))]))
    wrong = [each for each in bloom_fits(sweep) if each.fitted != each.predicted]
    print(f"fits: {len(list(bloom_fits(sweep)))} rows, {len(wrong)} wrong", *(each.name for each in wrong), sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
