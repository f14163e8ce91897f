"""Synchronous SGD (BSP, bulk synchronous parallel): every step waits for every rank.

Sources: Chen et al. 2016, "Revisiting Distributed Synchronous SGD"; Goyal et al. 2017, "Accurate, Large
Minibatch SGD", section 3. Through a server: Li et al. 2014, "Scaling Distributed Machine Learning with the Parameter
Server", section 3.5 (sequential consistency).

Idea: each rank computes the gradient of its share of the global batch at the same weights. The gradients are averaged,
and all ranks take the same step. So n ranks take the step that one process takes on the global batch.

Guarantee: equal to one process, whatever the number of ranks (up to the order of sums).
Staleness: 0.
Sharded: the batch. Replicated: weights, gradients, optimizer state.
Bytes per step: 2 (n-1)/n (N + 1) numbers per rank, N trained parameters and one count of samples. Through servers: as
in `asynchronous`.
Memory per rank: that of one process, and one flat copy of the gradients.
A slow rank: everyone waits for it at every step; a step takes as long as on the slowest rank.

Here the gradients travel in one message after the backward pass; `data_parallel.DDP` sends them during it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.synchronization.replicas import Stepper, trained, weighted_mean
from parallel_lab.trace import tag


def plan(ranks: int, *, steps: int = 1, axis: str = "") -> Plan:
    """What `steps` steps without a server do on each rank; `parameter_server.plan` is a step through servers."""
    whole("ranks", ranks)
    whole("steps", steps)
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for k in range(steps):
        backwards = [Op(rank, "B", 0, k) for rank in range(ranks)]
        for rank in range(ranks):
            mean = Op(rank, "all_reduce", 0, k, lane=SEND, axis=axis, phase="step")
            update = Op(rank, "update", 0, k)
            ops += [Op(rank, "F", 0, k), backwards[rank], mean, update]
            needs |= {mean: backwards, update: [mean]}
    return Plan.of(ops, needs, ranks=ranks)


class SynchronousSGD(Stepper):
    """Steps an optimizer from the mean of all ranks' gradients."""

    def step(self, weight: float = 1) -> None:
        """Averages the gradients in `.grad` over the ranks, and takes one step; see `Stepper.step`."""
        self._require_known()
        self._require_finite()
        parameters = trained(self.model)
        # A parameter that this rank's batch did not use has a gradient of zero.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        with tag(part=0, mb=self.steps, phase="step"):
            means = weighted_mean(gradients, weight, self.group)
        if means is not None:
            for parameter, gradient in zip(parameters, means, strict=True):
                parameter.grad = gradient.to(parameter.dtype)
            self._update()
        self.steps += 1


@dataclass(frozen=True)
class Synchronous(Rule):
    """The strategy: `SynchronousSGD` without a server; with one, a rule that waits for every live worker."""

    in_step = True
    stepper = SynchronousSGD

    def due(self, state: State) -> Sequence[int]:
        """All pushes, once every live worker has made one."""
        return state.held if state.all_held() else ()
