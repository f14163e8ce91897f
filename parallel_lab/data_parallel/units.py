"""The units of Zero3: what is communicated together, how it is cut, and its tensors, which come and go.

A unit is a module whose parameters are unsharded and resharded as one. The smaller the units, the less is held at once;
the larger, the fewer and better filled the messages. Repeated layers are the natural cut: by default every child of an
`nn.ModuleList` or `nn.Sequential` is a unit. What no unit has (in a GPT, the embeddings and the head) is the root's, as
is a parameter that two units share, since it is needed as long as either is.

A parameter of `rows` rows is cut along its first dimension as `torch.chunk` does: each of n ranks has ceil(rows / n)
rows, the last ranks fewer or none. On the wire every such piece has `chunk` elements, so only the end is padded.
A message is *rank-major*: a row for each rank, with its pieces of all parameters one after another. The whole
parameters are *parameter-major*: for each parameter, the pieces of all ranks one after another.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Home(NamedTuple):
    """A place in the model where a parameter stands: `module`'s `attribute`."""

    module: nn.Module
    attribute: str


class Slot(NamedTuple):
    """One parameter of a unit, and how it is cut."""

    name: str  # its first in the model
    homes: tuple[Home, ...]  # all its places (several where it is tied), in the order of the model's modules
    shape: torch.Size  # of the whole parameter
    rows: int  # how many a rank has, unless they run out
    chunk: int  # how many elements the message has for it, padding included

    def shard(self, whole: Tensor, rank: int) -> Tensor:
        """The rows of `whole` that `rank` has; a view."""
        whole = whole.view(whole.shape or (1,))  # a number is one row
        return whole[rank * self.rows : (rank + 1) * self.rows]

    def shape_of_shard(self, rank: int) -> tuple[int, ...]:
        """The shape of the rows that `rank` has."""
        return tuple(self.shard(torch.empty(self.shape, device="meta"), rank).shape)

    def first(self, rank: int) -> int:
        """Which element of the flattened parameter the shard of `rank` begins with."""
        return min(rank * self.chunk, prod(self.shape))

    def place(self, tensor: Tensor) -> None:
        """Puts `tensor` where the parameter stands in the model."""
        for module, attribute in self.homes:
            module._parameters[attribute] = tensor  # pyright: ignore[reportArgumentType] (wants a Parameter)


def padded(shapes: Iterable[Iterable[int]], n: int) -> int:
    """The elements that n ranks send together for parameters of these shapes: n pieces of ceil(rows / n) rows each."""
    return sum(n * -(-rows // n) * prod(rest) for rows, *rest in (tuple(shape) or (1,) for shape in shapes))


def cut(
    model: nn.Module, n: int, units: Iterable[nn.Module] | None = None, compute_dtype: torch.dtype | None = None
) -> list["Unit"]:
    """The units of `model` for n ranks, in order of registration, the root last; `units` instead of the default.

    A parameter belongs to the innermost unit that it lies in. Units without parameters are left out. A module with
    parameters of several dtypes makes a unit for each.

    Raises:
        ValueError: a unit is not a module inside `model`.
    """
    names = {module: name for name, module in model.named_modules()}
    lists = [module for module in names if isinstance(module, nn.ModuleList | nn.Sequential)]
    chosen = [child for each in lists for child in each] if units is None else list(units)
    for module in chosen:
        if module not in names or module is model:
            raise ValueError(f"the unit {type(module).__name__} is not a module inside the model")
    owners: dict[nn.Module, nn.Module] = {}
    for module in names:  # a parent comes before its children, so the innermost unit has the last word
        if module in chosen:
            owners |= dict.fromkeys(module.modules(), module)
    order = [module for module in names if module in chosen] + [model]
    found: dict[tuple[int, str], list[Slot]] = {}
    for slot, dtype in _slots(model, n):
        inside = {owners.get(home.module, model) for home in slot.homes}
        module = inside.pop() if len(inside) == 1 else model
        found.setdefault((order.index(module), str(dtype)), []).append(slot)
    cuts = [(order[place], slots) for (place, _), slots in sorted(found.items(), key=lambda item: item[0])]
    return [Unit(k, names[module] or "root", module, slots, n, compute_dtype) for k, (module, slots) in enumerate(cuts)]


def _slots(model: nn.Module, n: int) -> Iterator[tuple[Slot, torch.dtype]]:
    homes: dict[nn.Parameter, list[Home]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                homes.setdefault(parameter, []).append(Home(module, attribute))
    for name, parameter in model.named_parameters():
        if parameter.numel():  # one without elements stays as it is
            shape, rows = parameter.shape, -(-(parameter.shape or (1,))[0] // n)
            yield Slot(name, tuple(homes[parameter]), shape, rows, padded([shape], n) // n), parameter.dtype


class Unit:
    """A module whose parameters, of one dtype, are communicated together."""

    def __init__(
        self, part: int, name: str, module: nn.Module, slots: Sequence[Slot], n: int, compute_dtype: torch.dtype | None
    ) -> None:
        self.part, self.name, self.module, self.slots, self.n = part, name, module, slots, n
        self.chunks = [slot.chunk for slot in slots]
        self.modules = set(module.modules())
        self.shards: list[nn.Parameter] = []  # this rank's rows of each: the parameters that an optimizer steps
        self.resting: Sequence[Tensor] = self.shards  # what stands in the module while the whole ones do not
        self.whole: Tensor | None = None  # the whole parameters (n * share,)
        self.small: Tensor | None = None  # this rank's part of `whole`, where it was resharded to fewer ranks
        self.gathering: tuple[dist.Work, Tensor, Tensor] | None = None  # the handle, the message, what this rank sends
        self.gradients: list[Tensor | None] = []  # what `no_sync` has left, whole, None for a parameter without
        self.message: Tensor | None = None  # the gradients that are being reduce-scattered
        self.use = Use(self)  # the last one in a forward pass
        self.look()
        own = self.shards[0].dtype
        self.dtype = compute_dtype if compute_dtype and own.is_floating_point else own  # of the whole parameters

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

    def place(self, tensors: Sequence[Tensor]) -> None:
        """Puts `tensors` where the parameters stand in the model."""
        for slot, tensor in zip(self.slots, tensors, strict=True):
            slot.place(tensor)

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


def _padded(tensor: Tensor, size: int) -> Tensor:
    """`tensor` as a vector of `size` elements, with zeros at its end."""
    return nn.functional.pad(tensor.reshape(-1), (0, size - tensor.numel()))


@dataclass(eq=False)
class Use:
    """One use of a unit in a forward pass, and then in the backward pass."""

    unit: Unit
    mb: int = -1  # which forward pass it is, counted from the first
    order: list["Use"] = field(default_factory=list)  # the uses of that pass
    place: int = 0  # which of them this is
    pending: bool = False  # whether its backward pass is still to come
    span: AbstractContextManager = field(default_factory=nullcontext)  # the computing that is being recorded

    def after(self, expected: Sequence["Use"], count: int) -> list[Unit]:
        """The next `count` units of the forward pass, if it goes as `expected`, the one before, went."""
        this, *others = expected[self.place : self.place + 1 + count] or [None]
        return [use.unit for use in others if use] if this and this.unit is self.unit else []

    def before(self, count: int) -> list[Unit]:
        """The next `count` units of the backward pass; the root, the last of all, begins it."""
        return [use.unit for use in reversed(self.order[max(0, self.place - count) : self.place]) if use.pending]


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
