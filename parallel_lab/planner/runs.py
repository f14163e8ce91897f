"""Published training runs: their facts in one table, and the fields in which models are cut.

    for each in runs():
        print(each.name, each.mfu, each.mfu_from_hours(), each.missing)

The facts stand in `runs.yaml`, each with its source; what was not found is None, and `missing` names it. A utilization
that was reported is that of good steps. `mfu_from_hours` divides the FLOPs of the whole training by the hours that were
paid: restarts, evaluation, idle machines and changes of the batch are in it, so it is lower. Both divide by the peak of
bfloat16 products; against that of 8 bits, where a run multiplies in them, they are half as high.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.model.budget import implied_mfu, training_flops
from parallel_lab.planner.clusters import accelerator, accelerators

FACTS = ("tokens", "accelerator", "count", "hours", "layout", "mfu", "failures", "mwh", "tco2", "usd")


@dataclass(frozen=True)
class TrainingRun:
    """What is published of a training run; None where no value was found.

    Attributes:
        parameters: all of them.
        active: those that one token uses.
        tokens: of the whole pre-training.
        count: accelerators at once, at most.
        hours: accelerator hours, with all that was lost.
        layout, axes: how it was cut, in words and in numbers.
        mfu, hfu: reported for a step, in per cent.
        mwh, tco2, usd: energy, CO2 equivalent and money, as reported.
        secondary: a source that is not the authors' own.
    """

    name: str
    who: str
    year: int
    parameters: float
    source: str
    active: float | None = None
    tokens: float | None = None
    accelerator: str | None = None
    count: int | None = None
    hours: float | None = None
    layout: str | None = None
    axes: dict[str, int] = field(default_factory=dict)
    mfu: float | None = None
    hfu: float | None = None
    failures: str | None = None
    mwh: float | None = None
    tco2: float | None = None
    usd: float | None = None
    secondary: str | None = None
    notes: str | None = None

    @property
    def missing(self) -> list[str]:
        """Which of the columns of the table nobody published, as far as we found."""
        return [name for name in FACTS if getattr(self, name) is None]

    @property
    def flops(self) -> float | None:
        """6 N D, with the parameters that a token uses."""
        return training_flops(self.active or self.parameters, self.tokens) if self.tokens else None

    def mfu_from_hours(self) -> float | None:
        """Utilization in per cent that the published hours imply, against the 16-bit peak; None without hours."""
        if not (self.flops and self.hours and self.accelerator in accelerators()):
            return None
        return 100 * implied_mfu(self.flops, self.hours, peak_16_bits(self.accelerator))


def peak_16_bits(name: str) -> float:
    """Peak of dense products in 16 bits: bfloat16 where the accelerator has it, else float16."""
    peaks = dict(accelerator(name).peaks)
    return peaks.get("bf16") or peaks["fp16"]


def runs() -> list[TrainingRun]:
    """All runs of the table, the oldest first."""
    return [TrainingRun(**row) for row in table()["runs"]]


def run(name: str) -> TrainingRun:
    """The run of that name.

    Raises:
        ValueError: the table has none; the message lists those that it has.
    """
    known = {each.name: each for each in runs()}
    if name not in known:
        raise ValueError(f"no run {name!r} in the table: it has {', '.join(known)}")
    return known[name]


@dataclass(frozen=True)
class Field:
    """A field in which large models are trained, with one of them.

    Attributes:
        field, example: which, and a model.
        parameters: of that model; None where they are not what is large.
        cut: what of it was cut over devices, or that nothing was.
        source: paper and year.
    """

    field: str
    example: str
    cut: str
    source: str
    parameters: float | None = None


def fields() -> list[Field]:
    """The fields of the table."""
    return [Field(**row) for row in table()["fields"]]


@cache
def table() -> dict[str, list[dict[str, Any]]]:
    """What `runs.yaml` says, as it stands there."""
    with files("parallel_lab.planner").joinpath("runs.yaml").open(encoding="utf-8") as lines:
        return yaml.safe_load(lines)
