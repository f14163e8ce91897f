"""DiLoCo: local steps of AdamW, and an outer step of Nesterov's momentum on how far they led.

Source: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", algorithm 1.

Idea: as in local SGD, each rank trains alone for H inner steps. What the ranks then average is not the weights but the
*outer gradient*, theta_old - theta, the way back from where a rank has got to; an outer optimizer takes one step on
their mean. Its momentum carries the common direction of earlier rounds on, which lets H grow to hundreds of steps.

    delta = mean over ranks of (theta_old - theta)
    v     = mu v + delta
    theta = theta_old - lr (delta + mu v)          Nesterov; the paper takes lr = 0.7, mu = 0.9

With lr = 1 and mu = 0 the outer step is the mean of the weights: local SGD.

Guarantee: none proven; in the paper's runs with 8 workers and H = 500 it came close to synchronous training, and
sent 500 times less.
Staleness: 0 at a meeting; between meetings the ranks drift apart, by up to H steps.
Sharded: the batch. Replicated: weights, theta_old and v (equal on all ranks), inner optimizer state (each its own).
Bytes per step: 2 (n-1)/n (N + 1) / H numbers per rank.
Memory per rank: that of one process, and 2 N numbers for theta_old and v.
A slow rank: everyone waits for it once in H steps.
"""

from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from parallel_lab.agree.arguments import number
from parallel_lab.synchronization.local_sgd import LocalSGD, LocalSteps, plan
from parallel_lab.synchronization.replicas import trained

__all__ = ["DiLoCo", "OuterSteps", "outer_step", "plan"]


def outer_step(theta: Tensor, v: Tensor, delta: Tensor, lr: float, mu: float) -> None:
    """Nesterov's momentum in the form of `torch.optim.SGD(nesterov=True)`; `theta` and `v` become the new ones."""
    v.mul_(mu).add_(delta)
    theta.sub_(delta + mu * v, alpha=lr)


@dataclass(frozen=True)
class OuterSteps(LocalSteps):
    """The strategy: `DiLoCo`."""

    every: int = 500  # H, from 1; 500 in the paper
    outer_lr: float = 0.7  # of the outer step
    outer_momentum: float = 0.9  # of the outer step, from 0 and less than 1

    def __post_init__(self) -> None:
        super().__post_init__()
        number("outer_lr", self.outer_lr)
        if number("outer_momentum", self.outer_momentum) >= 1:
            raise ValueError(f"outer_momentum={self.outer_momentum}: expected less than 1, or it never decays")

    def stepper(self, model: nn.Module, optimizer: Optimizer, group: dist.ProcessGroup) -> "DiLoCo":
        """What runs the strategy on this rank."""
        return DiLoCo(model, optimizer, group=group, **asdict(self))


class DiLoCo(LocalSGD):
    """Steps the inner optimizer, AdamW in the paper, and every `every` steps the outer one; used like `LocalSGD`."""

    strategy = OuterSteps
    rule: OuterSteps

    def _start(self) -> None:
        # By parameter, from the first step that trains it on: theta_old, the weights of the last meeting, and v.
        self.outer: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        super()._start()

    def step(self, weight: float = 1) -> bool:
        """As that of `LocalSGD`; but of a new parameter theta_old is not the same on all ranks, so it is refused."""
        self._require_known()
        for parameter in trained(self.model):
            if parameter not in self.outer:
                old = parameter.detach().clone()
                self.outer[parameter] = old, torch.zeros_like(old)
        return super().step(weight)

    def _sent(self, parameter: nn.Parameter) -> Tensor:
        return self.outer[parameter][0] - parameter

    def _received(self, parameter: nn.Parameter, mean: Tensor) -> None:
        old, v = self.outer[parameter]
        outer_step(old, v, mean.to(old.dtype), self.rule.outer_lr, self.rule.outer_momentum)
        parameter.copy_(old)
