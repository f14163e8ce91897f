"""DiLoCo: local steps of AdamW, and an outer step of Nesterov's momentum on how far they led.

Source: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", algorithm 1.

Idea: as in local SGD, each rank trains alone for H inner steps. What the ranks then average is not the weights but the
*outer gradient*, w_old - w, the way back from where a rank has got to; an outer optimizer takes one step on
their mean. Its momentum carries the common direction of earlier rounds on, which lets H grow to hundreds of steps.

    g_out    = mean over ranks of (w_old - w)
    velocity = beta velocity + g_out
    w        = w_old - eta_out (g_out + beta velocity)     Nesterov; the paper takes eta_out = 0.7, beta = 0.9

With eta_out = 1 and beta = 0 the outer step is the mean of the weights: local SGD.

Guarantee: none proven; in the paper's runs with 8 workers and H = 500 it came close to synchronous training, and
sent 500 times less.
Staleness: 0 at a meeting; between meetings the ranks drift apart, by up to H steps.
Sharded: the batch. Replicated: weights, w_old and velocity (equal on all ranks), inner optimizer state (each its own).
Bytes per step: 2 (n-1)/n (N + 1) / H numbers per rank.
Memory per rank: that of one process, and 2 N numbers for w_old and the velocity.
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


def outer_step(weights: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    """Nesterov's momentum in the form of `torch.optim.SGD(nesterov=True)`; weights and velocity become the new ones."""
    velocity.mul_(momentum).add_(gradient)
    weights.sub_(gradient + momentum * velocity, alpha=lr)


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
        # By parameter, from the first step that trains it on: w_old, the weights of the last meeting, and the velocity.
        self.outer: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        super()._start()

    def step(self, weight: float = 1) -> bool:
        """As that of `LocalSGD`; but of a new parameter w_old is not the same on all ranks, so it is refused."""
        self._require_known()
        for parameter in trained(self.model):
            if parameter not in self.outer:
                old = parameter.detach().clone()
                self.outer[parameter] = old, torch.zeros_like(old)
        return super().step(weight)

    def _sent(self, parameter: nn.Parameter) -> Tensor:
        return self.outer[parameter][0] - parameter

    def _received(self, parameter: nn.Parameter, mean: Tensor) -> None:
        old, velocity = self.outer[parameter]
        outer_step(old, velocity, mean.to(old.dtype), self.rule.outer_lr, self.rule.outer_momentum)
        parameter.copy_(old)
