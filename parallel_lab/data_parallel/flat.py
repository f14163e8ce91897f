"""Flat vectors: parameters laid end to end, cut evenly among the ranks. What all three stages of ZeRO are built on.

Cutting each parameter on its own would leave remainders everywhere; one vector of all of them is cut once. Its end is
padded with zeros so that it divides by n: at most n - 1 elements a vector, which every collective carries too. Rank r
owns elements [r * share, (r + 1) * share), so a parameter may lie on two ranks or more, and each part of one that a
rank owns is a `Piece`.

Only optimizers that treat each element by itself (SGD, momentum, Adam, AdamW, RMSprop, Adagrad, ...) give the same
result on a shard as on the whole. One that looks at a whole tensor, such as LAMB, Adafactor or Muon, does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree import finite

# torch 2.13 renamed these; 2.11 knows the old names alone.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Slot(NamedTuple):
    """Where the parameter `name` of `shape` begins in the flat vector, in elements."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + prod(self.shape)


class Piece(NamedTuple):
    """The part of a parameter in one rank's share: its elements [start, stop), which begin at `at` in the share."""

    name: str
    start: int
    stop: int
    at: int

    @property
    def place(self) -> slice:
        """Where it stands in the share."""
        return slice(self.at, self.at + self.stop - self.start)


@dataclass(frozen=True)
class Layout:
    """The flat vector of some parameters, and its even cut among `ranks` ranks. Sizes are in elements."""

    slots: tuple[Slot, ...]
    ranks: int

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, Sequence[int]]], ranks: int) -> "Layout":
        """The parameters in the order given, as (name, shape)."""
        slots, start = [], 0
        for name, shape in shapes:
            slots.append(Slot(name, tuple(shape), start))
            start = slots[-1].stop
        return cls(tuple(slots), ranks)

    @property
    def used(self) -> int:
        """Elements of the parameters."""
        return self.slots[-1].stop if self.slots else 0

    @property
    def share(self) -> int:
        """Elements that each rank owns, padding included."""
        return -(-self.used // self.ranks)

    @property
    def numel(self) -> int:
        """Elements of the flat vector, padding included."""
        return self.share * self.ranks

    def place(self, rank: int) -> slice:
        """Where the share of `rank` stands in the flat vector."""
        return slice(rank * self.share, (rank + 1) * self.share)

    def pieces(self, rank: int) -> list[Piece]:
        """What `rank` owns, in order; a rank whose share is all padding owns nothing."""
        place = self.place(rank)
        owned = []
        for slot in self.slots:
            start, stop = max(slot.start, place.start), min(slot.stop, place.stop)
            if start < stop:
                owned.append(Piece(slot.name, start - slot.start, stop - slot.start, start - place.start))
        return owned

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each parameter as a view of `flat` (numel,), in its own shape."""
        return [flat[slot.start : slot.stop].view(slot.shape) for slot in self.slots]

    def name_at(self, index: int) -> str:
        """The parameter that element `index` of the flat vector belongs to; `padding` for the end."""
        return next((slot.name for slot in self.slots if slot.start <= index < slot.stop), "padding")


def flatten(tensors: Sequence[Tensor], layout: Layout) -> Tensor:
    """A new flat vector (numel,) that holds `tensors` in the order of the slots, and zeros as padding."""
    flat = tensors[0].new_zeros(layout.numel)
    for view, tensor in zip(layout.views(flat), tensors, strict=True):
        view.copy_(tensor.detach())
    return flat


def move_in(parameters: Sequence[Tensor], layout: Layout) -> Tensor:
    """Makes `parameters` views of one new flat vector (numel,), and returns it. Nothing is held twice afterwards."""
    flat = flatten(parameters, layout)
    for view, parameter in zip(layout.views(flat), parameters, strict=True):
        parameter.data = view
    return flat


def moved(flat: Tensor, layout: Layout, parameters: Sequence[Tensor]) -> str:
    """The name of the first of `parameters` that is no longer a view of `flat`; empty if all are."""
    start, size = flat.data_ptr(), flat.element_size()
    for slot, parameter in zip(layout.slots, parameters, strict=True):
        if parameter.numel() and parameter.data_ptr() != start + slot.start * size:
            return slot.name
    return ""


def moved_problem(name: str, technique: str) -> ValueError:
    """The error for a parameter that `moved` names."""
    return ValueError(f"{name} was moved after {technique} was made: call model.to(...) before {technique}(...)")


def gradient_problem(flat: Tensor, layout: Layout, rank: int) -> ValueError | None:
    """The error for the first parameter of the gradients `flat` (numel,) with a value that is not finite; or None."""
    if finite.is_finite(flat):
        return None
    first = int(torch.isfinite(flat).logical_not().nonzero()[0])
    return finite.gradient_problem(layout.name_at(first), f"rank {rank}")


def all_gather(flat: Tensor, shard: Tensor, group: dist.ProcessGroup) -> dist.Work:
    """Fills `flat` (numel,) with the shards (share,) of all ranks; `shard` may be this rank's part of `flat`.

    Sends (n-1)/n of `flat` per rank. The handle is to be waited for, and `shard` kept until then.
    """
    work = _all_gather(flat, shard, group=group, async_op=True)
    assert work is not None
    return work


def exchange(flat: Tensor, layout: Layout, group: dist.ProcessGroup) -> list[dist.Work]:
    """As `all_gather` in place, for large vectors that are waited for at once; on the CPU as n broadcasts side by side.

    Each rank broadcasts its share. That sends the same bytes as a ring all-gather, and gloo takes a third of the time
    for it that its own all_gather takes (10 M elements, 2 and 4 ranks).
    """
    if flat.is_cuda:
        return [all_gather(flat, flat[layout.place(group.rank())], group)]
    works = [
        dist.broadcast(flat[layout.place(owner)], group=group, group_src=owner, async_op=True)
        for owner in range(layout.ranks)
    ]
    return [work for work in works if work is not None]


def reduce_scatter(shard: Tensor, flat: Tensor, group: dist.ProcessGroup) -> dist.Work:
    """Sums `flat` (numel,) over the ranks and puts this rank's part into `shard` (share,).

    Sends (n-1)/n of `flat` per rank. The handle is to be waited for, and `flat` kept until then.
    """
    work = _reduce_scatter(shard, flat, group=group, async_op=True)
    assert work is not None
    return work


def free(tensor: Tensor) -> None:
    """Gives the memory of `tensor` back and keeps its shape; `allocate` undoes it."""
    tensor.untyped_storage().resize_(0)


def allocate(tensor: Tensor) -> None:
    """Gives a freed tensor memory again; what it holds is undefined."""
    tensor.untyped_storage().resize_(tensor.numel() * tensor.element_size())


def is_free(tensor: Tensor) -> bool:
    """Whether `tensor` holds no memory although it has elements."""
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0
