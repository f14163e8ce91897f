"""What `parallelize` is asked for beside the layout, and what it refuses, in a sentence, before anything is cut."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.agree.arguments import check_rate, number, whole
from parallel_lab.agree.problem import agree
from parallel_lab.hybrid.layout import AXES, Layout
from parallel_lab.hybrid.stages import schedule_of
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import GPT
from parallel_lab.pipeline import placement
from parallel_lab.plan import Plan
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


@dataclass(eq=False, kw_only=True)
class Settings:
    """The arguments of `parallelize`, which says what they mean."""

    zero: int
    shards: int
    schedule: str | Callable[[int, int], Plan]
    microbatches: int
    context: Literal["ring", "ulysses"]
    sequence: bool
    capacity_factor: float | None
    bias_rate: float
    recompute: bool
    clip: float | None

    def agreed(self) -> dict[str, object]:
        """What ranks must have alike."""
        return {**vars(self), "schedule": getattr(self.schedule, "__name__", self.schedule)}

    def checked_plan(
        self, model: Any, layout: Layout, mesh: DeviceMesh | None, optimizer_kwargs: Mapping[str, Any]
    ) -> Plan:
        """The plan of the pipeline. All ranks call it, and where one refuses, all stop.

        Raises:
            TypeError: the model is no GPT, or an argument is of the wrong type.
            ValueError: the layout cannot train the model, an argument makes no sense, or two do not go together.
        """
        problem, plan = None, Plan(())
        try:
            plan = self._plan(model, layout)
            self._check_mesh(layout, mesh)
            check_rate(dict(optimizer_kwargs))
        except (TypeError, ValueError) as error:
            problem = error
        with tag(phase="setup"):
            agree(problem, member(None), rank_device())
        return plan

    def _plan(self, model: Any, layout: Layout) -> Plan:
        if not isinstance(model, GPT):
            raise TypeError(f"parallelize lays out a GPT, and this is a {type(model).__name__}")
        plan = schedule_of(self.schedule, layout.pp, whole("microbatches", self.microbatches))
        stages, world = len(placement(plan)), dist.get_world_size()
        layout.check(model.config, world, microbatches=self.microbatches, stages=stages, context=self.context)
        self._check_zero(layout, model.config, stages)
        self._check_tokens(layout, model.config)
        number("bias_rate", self.bias_rate)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip={self.clip!r}: expected a number above 0, or None")
        return plan

    def _check_mesh(self, layout: Layout, mesh: DeviceMesh | None) -> None:
        expected = {axis: getattr(layout, axis) for axis in AXES}
        if mesh is not None and dict(zip(mesh.mesh_dim_names or (), mesh.shape, strict=True)) != expected:
            raise ValueError(f"the mesh is {mesh}: expected {expected}, outermost first, as layout.mesh() makes it")

    def _check_zero(self, layout: Layout, config: GPTConfig, stages: int) -> None:
        if self.zero not in (0, 1, 3):
            raise ValueError(f"zero={self.zero!r}: expected 0, 1 or 3")
        if layout.data % whole("shards", self.shards) or (self.zero != 3 and self.shards != layout.data):
            raise ValueError(f"shards={self.shards} is for zero=3, and divides the {layout.data} data ranks")
        if self.zero == 3 and layout.ep > 1:
            raise ValueError(
                f"zero=3 shards a stage over all data ranks, and ep={layout.ep} cuts these: zero=1 or ep=1"
            )
        if self.zero == 3 and config.tied and stages > layout.pp > 1:
            raise ValueError("zero=3 cannot share a tied weight between two stages of a rank: untie it, or zero=1")

    def _check_tokens(self, layout: Layout, config: GPTConfig) -> None:
        """Who has which tokens, inside of a layer."""
        if self.capacity_factor is not None and config.experts == 1:
            raise ValueError(f"capacity_factor={self.capacity_factor} is for experts, and this model has none")
        if self.sequence and config.experts > 1:
            raise ValueError("sequence=True leaves a rank a part of the tokens, and experts need all: choose one")
        if self.sequence and layout.tp == 1:
            raise ValueError("sequence=True shards activations over tp, and tp=1")
