"""Tasks and machines of a real cluster whose tasks share GPUs: openb of Alibaba, 2023 (Weng et al., ATC 2023).

The original is alibaba/clusterdata @7a6c496, cluster-trace-gpu-v2023/csv, with 8,152 pods and 1,213 GPU nodes. The
package has not the original but `openb.csv`: how many machines there are of each kind, and how many pods ask for what.
`summary_pods` and `summary_machines` lay these out, without times; the order of the pods is drawn.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from parallel_lab.systems.scheduling.trace import rows_of

SUMMARY = Path(__file__).with_name("openb.csv")


class Pod(NamedTuple):
    """What a task asks for: so many whole GPUs, or a part of one, in thousandths."""

    name: str
    gpus: int
    thousandths: int
    created_s: float = 0.0
    deleted_s: float = 0.0


class Machine(NamedTuple):
    """A machine and its GPUs, all of one model."""

    name: str
    gpus: int
    model: str


def pods(path: str | os.PathLike) -> list[Pod]:
    """The pods of the original, those without a GPU left out."""
    names = ("num_gpu", "gpu_milli", "creation_time", "deletion_time")
    return [Pod(row["name"], *(int(row[name]) for name in names)) for row in rows_of(path) if int(row["num_gpu"])]


def machines(path: str | os.PathLike) -> list[Machine]:
    """The GPU nodes of the original."""
    return [Machine(row["sn"], int(row["gpu"]), row["model"]) for row in rows_of(path)]


def summarized(machines: Iterable[Machine], pods: Iterable[Pod]) -> list[tuple[str, int, str, int]]:
    """The rows of the summary: (kind, GPUs, model or thousandths, how many)."""
    kinds = Counter(("machine", machine.gpus, machine.model) for machine in machines)
    asked = Counter(("pod", pod.gpus, str(pod.thousandths)) for pod in pods)
    return [(*row, count) for row, count in [*sorted(kinds.items()), *sorted(asked.items())]]


def summary_machines() -> list[Machine]:
    """As many machines of each kind as the original has."""
    kinds = [row for row in rows_of(SUMMARY) if row["kind"] == "machine"]
    return [
        Machine(f"{row['what']}-{row['gpus']}-{number}", int(row["gpus"]), row["what"])
        for row in kinds
        for number in range(int(row["count"]))
    ]


def summary_pods(count: int | None = None, *, seed: int) -> list[Pod]:
    """As many pods of each kind as the original has, in an order that is drawn; the first `count` of them."""
    kinds = [row for row in rows_of(SUMMARY) if row["kind"] == "pod"]
    asked = [(int(row["gpus"]), int(row["what"])) for row in kinds for _ in range(int(row["count"]))]
    random.Random(seed).shuffle(asked)
    return [Pod(str(number), *what) for number, what in enumerate(asked[:count])]
