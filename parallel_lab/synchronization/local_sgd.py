"""Local SGD: each rank trains alone for H steps, then the weights are averaged.

Sources: Stich 2019, "Local SGD Converges Fast and Communicates Little"; McMahan et al. 2017,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1 (FederatedAveraging: the mean
counts each client by its samples).

Idea: weights need not meet at every step. Each rank takes H steps of its own optimizer on its own batches; then all
weights are replaced by their mean over ranks, weighted by the samples that each rank has seen since the last meeting.
With H = 1 and plain SGD this is synchronous SGD: the mean of steps is the step of the mean.

Guarantee: for smooth, strongly convex losses the rate of synchronous SGD, as long as H stays small beside the square
root of the steps (Stich). With momentum or Adam, whose state stays each rank's own, H = 1 is not
synchronous training.
Staleness: 0 at a meeting; between meetings the ranks drift apart, by up to H steps.
Sharded: the batch. Replicated: weights (equal after a meeting only), optimizer state (never equal).
Bytes per step: 2 (n-1)/n (N + 1) / H numbers per rank.
Memory per rank: that of one process, and one flat copy of the weights while they meet.
A slow rank: everyone waits for it, but only at a meeting, so delays that come and go even out over H steps.

Buffers, such as running means, stay each rank's own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from parallel_lab.agree.arguments import keyword_only, whole
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.synchronization.replicas import Stepper, trained, weighted_mean
from parallel_lab.trace import tag


def plan(ranks: int, *, every: int, steps: int, axis: str = "", meet: str = "all_reduce") -> Plan:
    """What `steps` steps do on each rank: its updates, and a `meet` op at each meeting, the last one shorter."""
    for name, value in (("ranks", ranks), ("every", every), ("steps", steps)):
        whole(name, value)
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for k in range(steps):
        updates = [Op(rank, "update", 0, k) for rank in range(ranks)]
        for rank in range(ranks):
            ops += [Op(rank, "F", 0, k), Op(rank, "B", 0, k), updates[rank]]
            if (k + 1) % every == 0 or k + 1 == steps:
                meeting = Op(rank, meet, 0, k, lane=SEND, axis=axis, phase="step")
                ops.append(meeting)
                needs[meeting] = updates
                if k + 1 < steps:
                    needs[Op(rank, "F", 0, k + 1)] = [meeting]
    return Plan.of(ops, needs, ranks=ranks)


@dataclass(frozen=True)
class LocalSteps:
    """The strategy: `LocalSGD` with a meeting every `every` steps; `every` is H, from 1."""

    every: int

    def __post_init__(self) -> None:
        whole("every", self.every)

    def stepper(self, model: nn.Module, optimizer: Optimizer, group: dist.ProcessGroup) -> "LocalSGD":
        """What runs the strategy on this rank."""
        return LocalSGD(model, optimizer, group=group, **asdict(self))


class LocalSGD(Stepper):
    """Steps an optimizer and averages the weights at each meeting: `LocalSGD(model, optimizer, every=8)`."""

    strategy: type[LocalSteps] = LocalSteps

    @keyword_only("every")
    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, group: dist.ProcessGroup | None = None, **numbers: Any
    ) -> None:
        self.rule = self.strategy(**numbers)
        self.weight = 0.0  # of the samples seen since the last meeting
        self.moved: set[nn.Parameter] = set()  # since the last meeting, also those that were frozen after that
        super().__init__(model, optimizer, group=group)

    def step(self, weight: float = 1) -> bool:
        """Takes one step, and meets the others if it is time; says whether it met them. See `Stepper.step`."""
        self.moved.update(trained(self.model))
        if weight:
            self._require_finite()
            self._update()
        self.weight += weight
        self.steps += 1
        if due := self.steps % self.rule.every == 0:
            self._meet()
        return due

    def finish(self) -> None:
        """Meets once more if steps were taken since the last meeting."""
        if self.steps % self.rule.every:
            self._meet()

    @torch.no_grad()
    def _meet(self) -> None:
        parameters = [p for p in self.model.parameters() if p in self.moved]
        with tag(part=0, mb=self.steps - 1, phase="step"):
            means = weighted_mean([self._sent(p) for p in parameters], self.weight, self.group)
        if means is not None:
            for parameter, value in zip(parameters, means, strict=True):
                self._received(parameter, value)
        self.moved, self.weight = set(), 0.0

    def _sent(self, parameter: nn.Parameter) -> Tensor:
        """What the ranks take the mean of."""
        return parameter

    def _received(self, parameter: nn.Parameter, mean: Tensor) -> None:
        """What becomes of the mean."""
        parameter.copy_(mean)
