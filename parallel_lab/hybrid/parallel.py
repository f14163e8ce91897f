"""A model that is laid out: what `parallelize` makes, and everything else in this folder takes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.hybrid.layout import Layout
from parallel_lab.hybrid.settings import Settings
from parallel_lab.model.config import GPTConfig
from parallel_lab.pipeline.stage import Stage
from parallel_lab.pipeline.tied import Tied
from parallel_lab.plan import Plan
from parallel_lab.trace import tag

EXPERT = re.compile(r"\.experts\.(\d+)\.")  # in the name of a parameter of an expert, and its number


class Several:
    """Optimizers that step together: that of the experts, which other ranks share, and that of all else."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all: a schedule of learning rates writes into them."""
        return [group for each in self.optimizers for group in each.param_groups]

    def step(self) -> None:
        """One step of each."""
        for part, each in enumerate(self.optimizers):
            with tag(part=part):
                each.step()

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for each in self.optimizers:
            each.zero_grad()


@dataclass(eq=False, kw_only=True)
class Parallel(Settings):
    """This rank's part of a GPT, and how to step it; beside what stands here it has what `parallelize` was given.

    Attributes:
        layout: How many ranks each axis has.
        mesh: The axes pp, dp, cp and tp.
        groups: This rank's groups by axis: pp, dp, cp, tp, ep, edp and dp_cp.
        config: Of the whole model.
        stages: This rank's modules, by the number of their stage. Parameters have their names in the whole GPT.
        plan: The schedule of the pipeline.
        tied: The weight that stands in two stages.
        optimizer: What steps the parameters.
        steps: How many steps there have been; it names what a trace records.
    """

    layout: Layout
    mesh: DeviceMesh
    groups: dict[str, dist.ProcessGroup]
    config: GPTConfig
    stages: Mapping[int, nn.Module]
    plan: Plan
    tied: Tied
    optimizer: Any = None
    steps: int = 0

    @cached_property
    def place(self) -> dict[str, int]:
        """Where this rank stands along each axis."""
        return self.layout.place(dist.get_rank())

    @cached_property
    def runs(self) -> dict[int, Stage]:
        """The stages as the pipeline's executor takes them."""
        return {number: Stage(module, recompute=self.recompute) for number, module in self.stages.items()}

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return next(p.device for module in self.stages.values() for p in module.parameters())

    def modules(self) -> list[nn.Module]:
        """The stages without what shards them."""
        return [getattr(stage, "module", stage) for stage in self.stages.values()]

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """This rank's parameters by their names in the whole GPT, each once."""
        found: dict[nn.Parameter, str] = {}
        for module in self.modules():
            for name, parameter in module.named_parameters():
                found.setdefault(parameter, name)
        return {name: parameter for parameter, name in found.items()}

    def by_replicas(self) -> dict[str, dict[str, nn.Parameter]]:
        """The same by the axis along which they are replicated: `edp` for experts that ep has cut, else `dp_cp`."""
        found: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters().items():
            cut = self.layout.ep > 1 and EXPERT.search(name)
            found.setdefault("edp" if cut else "dp_cp", {})[name] = parameter
        return found
