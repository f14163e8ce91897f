"""The tensors of one unit of Zero3: its shards, which stay; its whole parameters and gradients, which come and go.

A message is *rank-major*: a row for each rank, with its pieces of all parameters one after another. The whole
parameters are *parameter-major*: for each parameter, the pieces of all ranks one after another. In both, a piece has
`chunk` elements, and n of them are a parameter with padding at its end.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.data_parallel.units import Cut


@dataclass(eq=False)
class Use:
    """One use of a unit in a forward pass, and then in the backward pass."""

    unit: "Unit"
    mb: int = -1  # which forward pass it is, counted from the first
    order: list["Use"] = field(default_factory=list)  # the uses of that pass
    place: int = 0  # which of them this is
    pending: bool = False  # whether its backward pass is still to come
    span: AbstractContextManager = field(default_factory=nullcontext)  # the computing that is being recorded

    def after(self, expected: Sequence["Use"], count: int) -> list["Unit"]:
        """The next `count` units of the forward pass, if it goes as `expected`, the one before, went."""
        this, *others = expected[self.place : self.place + 1 + count] or [None]
        return [use.unit for use in others if use] if this and this.unit is self.unit else []

    def before(self, count: int) -> list["Unit"]:
        """The next `count` units of the backward pass; the root, the last of all, begins it."""
        return [use.unit for use in reversed(self.order[max(0, self.place - count) : self.place]) if use.pending]


class Unit:
    """A module whose parameters are communicated together."""

    def __init__(self, part: int, cut: Cut, n: int, compute_dtype: torch.dtype | None) -> None:
        self.part, self.name, self.module, self.slots, self.n = part, cut.name, cut.module, cut.slots, n
        self.dtype = compute_dtype if compute_dtype and cut.dtype.is_floating_point else cut.dtype
        self.chunks = [slot.chunk for slot in cut.slots]
        self.modules = set(cut.module.modules())
        self.shards: list[nn.Parameter] = []  # this rank's rows of each: the parameters that an optimizer steps
        self.resting: Sequence[Tensor] = self.shards  # what stands in the module while the whole ones do not
        self.whole: Tensor | None = None  # the whole parameters (n * share,)
        self.small: Tensor | None = None  # this rank's part of `whole`, where it was resharded to fewer ranks
        self.gathering: tuple[dist.Work, Tensor, Tensor] | None = None  # the handle, the message, what this rank sends
        self.gradients: list[Tensor | None] = []  # what `no_sync` has left, whole, None for a parameter without
        self.message: Tensor | None = None  # the gradients that are being reduce-scattered
        self.use = Use(self)  # the last one in a forward pass
        self.look()

    def look(self) -> None:
        """Looks which parameters stand in the model: `to_empty` puts new ones there."""
        homes = [slot.homes[0] for slot in self.slots]
        self.shards[:] = [getattr(module, attribute) for module, attribute in homes]

    @property
    def trained(self) -> list[int]:
        """The numbers of the parameters that are not frozen."""
        return [k for k, shard in enumerate(self.shards) if shard.requires_grad]

    def keep_rows(self, rank: int) -> None:
        """Leaves the rows of `rank` in each parameter, which remains the same object in the same place."""
        for slot, parameter in zip(self.slots, self.shards, strict=True):
            rows = slot.shard(parameter.data, rank)
            parameter.data, parameter.grad = rows.clone(memory_format=torch.contiguous_format), None

    def empty_parameters(self) -> list[nn.Parameter]:
        """Whole parameters with memory and without values."""
        pairs = zip(self.slots, self.shards, strict=True)
        return [nn.Parameter(p.new_empty(slot.shape), requires_grad=p.requires_grad) for slot, p in pairs]

    def take(self, parameters: Sequence[Tensor], rank: int) -> None:
        """Copies the rows of `rank` from whole parameters into the shards, and puts those into the model."""
        for slot, shard, whole in zip(self.slots, self.shards, parameters, strict=True):
            shard.copy_(slot.shard(whole, rank))
        self.place(self.shards)

    def place(self, tensors: Sequence[Tensor]) -> None:
        """Puts `tensors` where the parameters stand in the model."""
        for slot, tensor in zip(self.slots, tensors, strict=True):
            for module, attribute in slot.homes:
                module._parameters[attribute] = tensor  # pyright: ignore[reportArgumentType] (wants a Parameter)

    def packed_shards(self, dtype: torch.dtype) -> Tensor:
        """This rank's row of a message (share,)."""
        pieces = [_padded(shard.detach(), k) for shard, k in zip(self.shards, self.chunks, strict=True)]
        return torch.cat(pieces).to(dtype)

    def unpacked(self, message: Tensor) -> Tensor:
        """The whole parameters (n * share,) from the rows of all ranks (n * share,)."""
        if len(self.chunks) == 1 or self.n == 1:
            return message
        whole = torch.empty_like(message)
        pieces = message.view(self.n, -1).split(self.chunks, dim=1)
        for to, piece in zip(whole.split([self.n * k for k in self.chunks]), pieces, strict=True):
            to.view_as(piece).copy_(piece)
        return whole

    def parameters(self) -> list[Tensor]:
        """The whole parameters in their shapes, without padding: tensors of their own on the memory of `whole`."""
        assert self.whole is not None
        parts = self.whole.split([self.n * k for k in self.chunks])
        return [part[: prod(s.shape)].view(s.shape).data for part, s in zip(parts, self.slots, strict=True)]

    def part_of_whole(self, group: dist.ProcessGroup) -> Tensor:
        """This rank's part among the ranks of `group`, which divide n."""
        assert self.whole is not None
        return self.whole.view(group.size(), -1)[group.rank()].clone()

    def collect(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds whole gradients to those that `no_sync` has left."""
        held = self.gradients or [None] * len(gradients)
        pairs = zip(held, gradients, strict=True)
        self.gradients = [new if old is None else old if new is None else old + new for old, new in pairs]

    def packed_gradients(self, dtype: torch.dtype) -> Tensor:
        """The message (n * share of what is trained,) of the collected gradients; zeros for one that is not there."""
        rows = []
        for k in self.trained:
            gradient, size = self.gradients[k], self.n * self.chunks[k]
            whole = self.shards[k].new_zeros(size) if gradient is None else _padded(gradient, size)
            rows.append(whole.to(dtype).view(self.n, -1))
        self.gradients = []
        return torch.cat(rows, dim=1).view(-1)

    def add(self, mine: Tensor) -> None:
        """Adds this rank's row (share of what is trained,) of the mean gradients to the gradients of its shards."""
        for k, piece in zip(self.trained, mine.split([self.chunks[k] for k in self.trained]), strict=True):
            shard = self.shards[k]
            gradient = piece[: shard.numel()].view(shard.shape).to(shard.dtype)
            shard.grad = gradient if shard.grad is None else shard.grad.add_(gradient)


class Unshard(torch.autograd.Function):
    """Whole parameters as autograd sees them: its backward is called when all gradients of this use are complete."""

    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, use: Use, post_backward: Callable) -> tuple[Tensor, ...]:
        """The whole parameters of the unit; the frozen ones get no gradient."""
        ctx.use, ctx.post_backward = use, post_backward
        ctx.set_materialize_grads(False)  # None for a parameter that was not used
        parameters = use.unit.parameters()
        ctx.mark_non_differentiable(*(p for k, p in enumerate(parameters) if k not in use.unit.trained))
        return tuple(parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Hands the gradients on. The shards get theirs later, when they have come from the other ranks."""
        ctx.post_backward(ctx.use, gradients)
        return None, None, None


def _padded(tensor: Tensor, size: int) -> Tensor:
    """`tensor` as a vector of `size` elements, with zeros at its end."""
    vector = tensor.reshape(-1)
    return vector if len(vector) == size else torch.nn.functional.pad(vector, (0, size - len(vector)))
