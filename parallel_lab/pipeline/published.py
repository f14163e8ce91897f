"""What was measured and published of real pipelines, to hold the plans against.

Qi et al. 2024, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241): table 6 has the times of passes and
messages that were profiled on up to 32 GPUs (A100), table 5 the bubble rates of each schedule with these times.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

from parallel_lab.simulate import PassCost


@dataclass(frozen=True)
class Published:
    """A row of both tables.

    Attributes:
        model: Its size, as the paper names it.
        p: Ranks.
        m: Microbatches.
        cost: The profiled times, in seconds.
        rates: For each schedule, the published rate, as `Trace.bubble(own=True)` counts: to four decimals.
    """

    model: str
    p: int
    m: int
    cost: PassCost
    rates: dict[str, float]


def zero_bubble_table() -> list[Published]:
    """The twelve rows. The paper's 1F1B-I is left out: how its chunks were cut is not said to the last digit."""
    with files("parallel_lab.pipeline").joinpath("table5.csv").open(encoding="utf-8") as lines:
        return [_row(**row) for row in csv.DictReader(lines)]


def _row(model: str, p: str, m: str, **numbers: str) -> Published:
    f, i, w, message = (float(numbers.pop(f"{name}_ms")) / 1e3 for name in ("forward", "input", "weight", "message"))
    rates = {schedule: float(rate) for schedule, rate in numbers.items()}
    return Published(model, int(p), int(m), PassCost(f, i + w, i, w, message_s=message), rates)
