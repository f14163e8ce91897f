"""What a job is given to work with, and what notes on each rank what the job does: its log, and the samples it reads.

Ranks import this module, so it loads no technique. A job is called with what its case gives it and with a `Report`, and
returns the model that it trained.
"""

import zlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.runtime.rank.processor_time import limit_processor_time

PROCESSOR_S = 20  # of one rank in one run; the jobs of the clinic take a second and less


class Report:
    """The log of a job on one rank: `report(model, loss=0.7)` after each step adds a row and prints it.

    A model leaves a fingerprint of its weights: equal ones have the same.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, model: nn.Module | None = None, **numbers: float | Tensor) -> None:
        """Adds the row of one step."""
        row: dict[str, Any] = {name: float(value) for name, value in numbers.items()}
        if model is not None:
            row["weights"] = fingerprint(model)
        self.rows.append(row)
        said = (f"{name} {value:.4g}" if type(value) is float else f"{name} {value}" for name, value in row.items())
        print(f"step {len(self.rows) - 1}:", ", ".join(said), flush=True)


class Instrument:
    """Something that a job works with, and that notes how."""

    name = ""  # of its notes in a chart

    def __init__(self) -> None:
        self.noted: list[Any] = []  # plain numbers, lists and tensors

    def notes(self) -> dict[str, Any]:
        """What the chart keeps, by name."""
        return {self.name: self.noted}


class Samples(Instrument):
    """A data set that notes which samples this rank reads: `inputs, targets = samples[[3, 1, 2]]`, or a slice."""

    name = "samples"

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, which: Any) -> tuple[Tensor, Tensor]:
        """The inputs and targets at these places."""
        places = torch.arange(len(self))[which].reshape(-1)
        self.noted.append(places.tolist())
        return self.inputs[places], self.targets[places]

    def notes(self) -> dict[str, Any]:
        """The places that were read, and of what classes the samples there are."""
        places = [place for each in self.noted for place in each]
        return super().notes() | {"classes": self.targets[places].tolist() if self.targets.dim() == 1 else []}


def fingerprint(model: nn.Module) -> str:
    """Eight letters that differ, but for one chance in four billion, where a single bit of a parameter does."""
    code = 0
    for parameter in model.parameters():
        code = zlib.crc32(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes(), code)
    return f"{code:08x}"


def work(job: Callable, given: Callable, seed: int) -> dict[str, Any]:
    """Runs `job` on this rank; returns in plain data what it came to, what it reported, and what was noted."""
    limit_processor_time(PROCESSOR_S)
    report, arguments = Report(), given(dist.get_rank(), dist.get_world_size(), seed)
    model = job(*arguments, report)
    notes = {key: value for one in arguments if isinstance(one, Instrument) for key, value in one.notes().items()}
    is_model = isinstance(model, nn.Module)
    state = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()} if is_model else {}
    what = "None" if model is None else f"a {type(model).__name__}"
    return {"state": state, "returned": "" if is_model else what, "rows": report.rows, "notes": notes}
