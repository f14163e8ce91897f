"""What no data sheet gives and the planner fits: twelve constants, each with a unit, bounds and a meaning.

constants()                    # as `python -m parallel_lab.planner.calibrate` wrote them
constants().but(host_s=0)      # with one changed
"""

from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml


class Bounds(NamedTuple):
    """Between which values a constant is fitted, in which unit, and what it is."""

    low: float
    high: float
    unit: str
    meaning: str


BOUNDS = {
    "product_share": Bounds(0.3, 0.95, "share", "of the peak that a large product of matrices reaches"),
    "memory_share": Bounds(0.3, 1.0, "share", "of the memory's bandwidth that kernels reach which read and write"),
    "host_s": Bounds(1e-4, 1e-2, "s", "to launch the kernels of a layer's passes: below it no layer can go"),
    "misaligned": Bounds(1, 60, "times", "that products of attention take where a head's width is no multiple of 8"),
    "attention_share": Bounds(0.1, 0.9, "share", "of the peak that fused attention reaches, forward"),
    "attention_back_share": Bounds(0.1, 0.9, "share", "of the peak that fused attention reaches, backward"),
    "logit_bytes": Bounds(2, 100, "B", "read and written for each logit by the loss, beyond the product"),
    "unfused_traffic": Bounds(1, 4, "times", "the bytes that elementwise work moves where a framework fuses none"),
    "fast_share": Bounds(0.4, 1.0, "share", "of a node's links that a collective reaches"),
    "slow_share": Bounds(0.4, 1.0, "share", "of the network's cards that a collective reaches"),
    "deepspeed_products": Bounds(1, 2, "times", "that products take under Megatron-DeepSpeed of 2022 on Jean Zay"),
    "deepspeed_s": Bounds(1e-4, 3e-2, "s", "that the same adds to a layer's passes, however long the microbatch"),
}
"""The free constants of the planner. All else is counted, or stands on a data sheet."""


@dataclass(frozen=True)
class Constants:
    """The constants of `BOUNDS`, which says what each is."""

    product_share: float = 0.81
    memory_share: float = 0.78
    host_s: float = 3.3e-3
    misaligned: float = 28.0
    attention_share: float = 0.40
    attention_back_share: float = 0.29
    logit_bytes: float = 9.0
    unfused_traffic: float = 1.8
    fast_share: float = 0.76
    slow_share: float = 0.9
    deepspeed_products: float = 1.2
    deepspeed_s: float = 5e-3

    def but(self, **changed: float) -> "Constants":
        """The same with some changed."""
        return replace(self, **changed)

    def values(self) -> dict[str, float]:
        """By name, in the order of `BOUNDS`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@cache
def constants() -> Constants:
    """Those that `calibrate` wrote into constants.yaml."""
    return Constants(**_file()["constants"])


def calibrated() -> dict[str, Any]:
    """All that `calibrate` wrote: the constants, their errors by stratum, and what left-out rows came to."""
    return _file()


def _file() -> dict[str, Any]:
    with files("parallel_lab.planner").joinpath("constants.yaml").open(encoding="utf-8") as lines:
        return yaml.safe_load(lines)
