"""Hogwild: all ranks update the same weights in shared memory, without a lock.

Source: Recht, Re, Wright, Niu 2011, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent",
sections 2 to 4 and algorithm 1.

Idea: the weights lie in memory that every rank maps. Each rank reads them, computes a gradient of its own batch and
subtracts its step, whatever the others are doing. Nobody waits for anybody and nothing is sent.

Guarantee: near-linear speed-up for strongly convex losses whose gradients are *sparse*, so that updates seldom touch
the same weights, and if each number is added to atomically. Neural networks have dense gradients and torch does not add
atomically, so an update can be lost in part where two ranks write at once; it works in practice with few ranks.
Staleness: about n - 1 with n equally fast ranks. A rank may even read weights that are half old and half new.
Sharded: the batch. Shared: the weights, once for all ranks. Each rank's own: gradients, optimizer state.
Bytes per step: 0 through the network; the memory bus carries them.
Memory: N numbers for all ranks together, and gradients and optimizer state for each.
A slow rank: nobody waits for it; its gradients are staler than the others'.

A gradient is one rank's, not a mean over ranks: n ranks take n small steps where synchronous SGD takes one.
"""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import NamedTemporaryFile, TemporaryFile

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from parallel_lab.plan import Plan
from parallel_lab.synchronization import local_sgd
from parallel_lab.synchronization.replicas import Stepper, start_equal, trained
from parallel_lab.trace import tag


def plan(ranks: int, *, steps: int = 1, axis: str = "") -> Plan:
    """What `steps` steps do on each rank: no message at all, and a barrier at the end, when the weights are final."""
    return local_sgd.plan(ranks, every=steps, steps=steps, axis=axis, meet="barrier")


@torch.no_grad()
def share_parameters(model: nn.Module, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Moves the trained parameters of `model` into memory that all ranks share, with rank 0's values.

    Every rank calls it, and gets the flat shared tensor, (N,). From here on a write by one rank is read by all. Frozen
    parameters and buffers stay each rank's own.

    Raises:
        ValueError: this rank's model differs from rank 0's, is not on the CPU, or mixes dtypes.
    """
    parameters = trained(model)
    kinds = sorted({f"{p.dtype} on {p.device.type}" for p in parameters})
    if len(kinds) != 1 or not kinds[0].endswith(" on cpu"):
        raise ValueError(f"hogwild needs trained parameters of one dtype on the CPU, and found {', '.join(kinds)}")
    start_equal(model, group)
    flat = shared_zeros(sum(p.numel() for p in parameters), parameters[0].dtype, group)
    if dist.get_rank(group) == 0:
        flat.copy_(parameters_to_vector(parameters))
    vector_to_parameters(flat, parameters)  # views of it
    dist.barrier(group)  # nobody reads before rank 0 has written
    return flat


class HogwildSGD(Stepper):
    """Steps an optimizer on the weights that all ranks share; no step waits for another rank.

    Of `step`'s `weight` only 0 matters, since nothing is averaged. `staleness` has, for each gradient of this rank, how
    many updates the other ranks finished between its forward pass, which reads the weights, and its own update's end.
    """

    def _start(self) -> None:
        self.rank = dist.get_rank(self.group)
        self.staleness: list[int] = []
        share_parameters(self.model, group=self.group)
        self._known = set(trained(self.model))  # a parameter that is thawed later is not shared
        # One counter per rank, written by that rank alone: then no count can be lost, although nothing is locked.
        self.applied = shared_zeros(dist.get_world_size(self.group), torch.int64, self.group)
        self.read = 0  # what the others had applied when this rank last read the weights
        self.model.register_forward_pre_hook(self._note_reading)

    def step(self, weight: float = 1) -> None:
        """Takes one step from the gradients in `.grad`, on whatever the weights are by now; see `Stepper.step`."""
        self._require_known()
        if weight:
            self._require_finite()
            self._update()
            self.staleness.append(self._others() - self.read)
            self.applied[self.rank] += 1
        self.steps += 1

    def finish(self) -> None:
        """Waits until every rank has stopped writing: from then on the weights are final."""
        with tag(part=0, mb=self.steps - 1, phase="step"):
            dist.barrier(self.group)

    def _note_reading(self, *_: object) -> None:
        self.read = self._others()

    def _others(self) -> int:
        """How many updates the other ranks have made until now."""
        return int(self.applied.sum() - self.applied[self.rank])


@dataclass(frozen=True)
class Hogwild:
    """The strategy: `HogwildSGD`."""

    stepper = HogwildSGD


def shared_zeros(count: int, dtype: torch.dtype, group: dist.ProcessGroup | None = None) -> Tensor:
    """`count` zeros on the CPU, in a file that all ranks of the group, which are on one machine, have mapped.

    On Linux the file never has a name: the others map it through rank 0's descriptor in /proc, and when the last
    mapping goes, the memory goes. Elsewhere it has a name until all ranks have mapped it.
    """
    box = [""]
    with ExitStack() as stack:
        if dist.get_rank(group) == 0:
            nameless = sys.platform == "linux"
            kind = TemporaryFile if nameless else NamedTemporaryFile
            file = stack.enter_context(kind(prefix="parallel-lab-shared-"))
            file.truncate(max(1, count) * dtype.itemsize)
            box = [f"/proc/{os.getpid()}/fd/{file.fileno()}" if nameless else file.name]
        dist.broadcast_object_list(box, group=group, group_src=0, device=torch.device("cpu"))
        if not os.path.exists(box[0]):
            raise RuntimeError(
                f"no {box[0]} here: Hogwild needs all ranks on one machine; elsewhere use Asynchronous()"
            )
        tensor = torch.from_file(box[0], shared=True, size=max(1, count), dtype=dtype)[:count]
        dist.barrier(group)  # every rank has mapped the file: from here on it needs no name and no descriptor
    return tensor
