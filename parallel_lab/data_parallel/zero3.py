"""ZeRO, stage 3, as FSDP2 does it: each rank keeps an n-th of every parameter, and has the whole only while it is used.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.3. Units and
prefetching are those of Zhao et al. 2023, "PyTorch FSDP", sections 3.2 and 3.3; the cut of each parameter along its
first dimension, and the words, are those of `torch.distributed.fsdp.fully_shard`.
Before a unit computes, in either direction, it is *unsharded*: one all-gather brings all of its parameters. After it,
it is *resharded*: the whole parameters are dropped. Its gradients are reduce-scattered as soon as they are complete.
While one unit computes, the next is on its way.

    sharded                parameters, gradients and moments
    replicated             buffers; on a mesh of two axes also the shards, along the first
    sent a step and rank   (n-1)/n Psi elements in the forward pass, (n-1)/n Psi in the backward pass, and (n-1)/n Psi
                           of gradients. The root unit, which is used at both ends of the forward pass, stays unsharded
                           until the backward pass is over, so it is gathered once; without `reshard_after_forward`,
                           so is every unit
    held a rank            under Adam 16/n bytes a parameter, in float32 as with `compute_dtype`; beside that the root
                           and at most 1 + `prefetch` units unsharded, one message, and the gradients of two units

Psi is the number of parameters, of which each counts as n times ceil(rows / n) rows (`units.padded`).
`units.py` cuts the model; `zero3_saved.py` lets go of what autograd saved; `zero3_state.py` saves and loads;
`zero3_guards.py` refuses what cannot go well.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import pad

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel.units import Cut, cut, tensors_in
from parallel_lab.data_parallel.zero3_groups import Groups, reduce_scatter
from parallel_lab.data_parallel.zero3_guards import Guards, NoGuards
from parallel_lab.data_parallel.zero3_saved import saved_as_handles
from parallel_lab.data_parallel.zero3_state import State
from parallel_lab.plan import COMPUTE, SEND, Op, Plan
from parallel_lab.runtime.gather import all_gather
from parallel_lab.trace import span, tag


def plan(
    n: int,
    units: int,
    *,
    prefetch: int = 1,
    reshard_after_forward: bool = True,
    root: bool = False,
    microbatches: int = 1,
    no_sync: bool = False,
    replicas: int = 1,
    guarded: bool = True,
    axis: str = "",
    replicate_axis: str = "",
) -> Plan:
    """Forward and backward passes of n x `replicas` ranks through a chain of units.

    Args:
        n: ranks that share the parameters.
        units: how many, without the root.
        prefetch: how many units ahead are unsharded.
        reshard_after_forward: whether units are unsharded again in the backward pass.
        root: whether there is a root, of part `units`. It computes all along, so it has no `F` and no `B`.
        microbatches: each has a forward and a backward pass.
        no_sync: whether all microbatches but the last keep their gradients on the rank.
        replicas: ranks along the first axis of a mesh of two; rank r is of replica r // n.
        guarded: whether ranks agree, by an `all_reduce` of one flag (the part after the last), that gradients were finite.
        axis: the mesh axis along which parameters are sharded.
        replicate_axis: the mesh axis along which shards are replicated.

    Raises:
        ValueError: a number is too small.
    """
    if min(n, units, microbatches, replicas) < 1 or prefetch < 0:
        raise ValueError(f"{n=}, {units=}, {microbatches=}, {replicas=}, {prefetch=}: expected at least 1, prefetch 0")
    rows: list[Op] = []
    for rank in range(n * replicas):
        wire = partial(Op, rank, lane=SEND)
        gather, scatter = partial(wire, "all_gather", axis=axis), partial(wire, "reduce_scatter", axis=axis)
        for mb in range(microbatches):
            rows += [gather(units, mb, phase="forward")] * root
            rows += _pass(Op(rank, "F", 0, mb), range(units), prefetch, partial(gather, phase="forward"))
            again = partial(gather, phase="backward") if reshard_after_forward else None
            backward = _pass(Op(rank, "B", 0, mb), range(units)[::-1], prefetch, again)
            if no_sync and mb + 1 < microbatches:
                rows += backward
                continue
            previous: list[Op] = []  # a replicated shard is all-reduced when the next unit's gradients leave
            for op in [*backward, *[Op(rank, "B", units, mb)] * root]:
                rows += [op] * (op.part < units)
                if op.kind == "B":
                    rows += [*previous, scatter(op.part, mb, phase="backward")]
                    previous = [wire("all_reduce", op.part, mb, axis=replicate_axis, phase="backward")] * (replicas > 1)
            rows += previous + [wire("all_reduce", units + root, mb, phase="backward")] * guarded
    return Plan.of(rows, _needs(rows, n), ranks=n * replicas)


def _pass(compute: Op, order: Sequence[int], prefetch: int, gather: Callable[..., Op] | None) -> Iterator[Op]:
    """One rank's pass through the units, in which each is gathered `prefetch` units ahead."""
    for place, part in enumerate(order):
        for ahead in order[place + prefetch if place else 0 : place + 1 + prefetch] if gather else ():
            yield gather(ahead, compute.mb)
        yield compute._replace(part=part)


def _needs(rows: Sequence[Op], n: int) -> dict[Op, list[Op]]:
    """A unit computes when it is gathered; its gradients are summed when every rank has them."""
    needs: dict[Op, list[Op]] = {}
    gathered: dict[tuple[int, int], Op] = {}
    computed: dict[int, Op] = {}  # a rank issues what comes after this in its row when this is over
    for op in rows:
        if op.lane == COMPUTE:
            needs[op], computed[op.rank] = [gathered[op.rank, op.part]], op
            continue
        if op.kind == "all_gather":
            gathered[op.rank, op.part] = op
        needs[op] = [computed[op.rank]] if op.rank in computed else []
    for op in [op for op in rows if op.kind == "reduce_scatter"]:
        first = op.rank - op.rank % n
        everyone = [Op(rank, "B", op.part, op.mb) for rank in range(first, first + n)]
        needs[op] += [each for each in everyone if each in needs and each.rank != op.rank]
    return needs


@dataclass(eq=False)
class Use:
    """One use of a unit in a forward pass, and then in the backward pass.

    Attributes:
        unit: what is used.
        mb: which forward pass it is, counted from the first.
        order: the uses of that pass, in order.
        place: which of them this is.
        pending: whether its backward pass is still to come.
        span: the computing that is being recorded.
    """

    unit: "Unit"
    mb: int
    order: "list[Use]"
    place: int
    pending: bool = False
    span: AbstractContextManager | None = None


class Unit:
    """A module whose parameters are communicated together: their shards stay, the whole parameters come and go.

    A message is *rank-major*: a row for each rank, its pieces of all parameters one after another. The whole parameters
    are *parameter-major*, in one vector: for each parameter, the pieces of all ranks one after another.

    Attributes:
        part: its number.
        name: of the module in the model.
        module: which one it is.
        slots: its parameters, and where they lie.
        dtype: what they are computed in.
        shards: this rank's rows of each: the parameters that an optimizer steps.
        resting: what stands in the module while the whole parameters do not: the shards.
        whole: the whole parameters (n * share,); None while there are only shards.
        small: this rank's part of `whole` where it was resharded to fewer ranks; None elsewhere.
        gathering: the handle of an all-gather under way, its message, and what this rank sends; None elsewhere.
        gradients: what `no_sync` has left, whole, None for a parameter without; empty elsewhere.
        message: the gradients that are being reduce-scattered; None elsewhere.
        use: the last one in a forward pass.
    """

    def __init__(self, part: int, cut: Cut, groups: Groups, compute_dtype: torch.dtype | None) -> None:
        self.part, self.name, self.module, self.slots, self.groups = part, cut.name, cut.module, cut.slots, groups
        self.dtype = compute_dtype if compute_dtype and cut.dtype.is_floating_point else cut.dtype
        self.chunks, self.modules = [slot.chunk for slot in cut.slots], set(cut.module.modules())
        self.shards: list[nn.Parameter] = []
        self.resting: Sequence[Tensor] = self.shards
        self.whole: Tensor | None = None
        self.small: Tensor | None = None
        self.gathering: tuple[dist.Work, Tensor, Tensor] | None = None
        self.gradients: list[Tensor | None] = []
        self.message: Tensor | None = None
        self.use = Use(self, -1, [], 0)

    def look(self) -> None:
        """Looks which parameters stand in the model: `to_empty` puts new ones there."""
        self.shards[:] = [slot.homes[0].module._parameters[slot.homes[0].attribute] for slot in self.slots]

    def unshard(self, dtype: torch.dtype) -> None:
        """Starts the all-gather, unless the whole parameters are there or on their way."""
        if self.whole is not None or self.gathering:
            return
        pieces = zip(self.shards, self.chunks, strict=True)
        mine, group = self.small, self.groups.small
        if mine is None:
            mine, group = torch.cat([_padded(s.detach(), k) for s, k in pieces]).to(dtype), self.groups.shard
        message = mine.new_empty(group.size() * mine.numel())
        self.gathering = all_gather(message, mine, group), message, mine

    def wait_for_unshard(self) -> None:
        """Waits for the all-gather, and puts the pieces of each parameter together."""
        if self.gathering is None:
            return
        (work, message, _), self.gathering = self.gathering, None
        work.wait()
        self.whole = message
        if self.small is None and len(self.chunks) > 1:
            self.whole, n = torch.empty_like(message), self.groups.shard.size()
            pieces = message.view(n, -1).split(self.chunks, dim=1)
            for whole, piece in zip(self.whole.split([n * k for k in self.chunks]), pieces, strict=True):
                whole.view_as(piece).copy_(piece)

    def reshard(self, small: bool = False) -> None:
        """Drops the whole parameters; with `small`, all but this rank's part among fewer ranks."""
        if self.gathering:
            self.gathering[0].wait()
        group = self.groups.small
        self.small = (
            self.whole.view(group.size(), -1)[group.rank()].clone() if small and self.whole is not None else None
        )
        self.whole = self.gathering = None

    def place(self, tensors: Sequence[Tensor]) -> None:
        """Puts `tensors` where the parameters stand in the model."""
        for slot, tensor in zip(self.slots, tensors, strict=True):
            for module, attribute in slot.homes:
                module._parameters[attribute] = tensor  # pyright: ignore[reportArgumentType] (wants a Parameter)

    def parameters(self) -> list[Tensor]:
        """The whole parameters, as tensors of their own on the memory of `whole`."""
        assert self.whole is not None
        parts = self.whole.split([self.groups.shard.size() * k for k in self.chunks])
        return [part[: slot.shape.numel()].view(slot.shape).data for part, slot in zip(parts, self.slots, strict=True)]

    def collect(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds whole gradients to those that `no_sync` has left."""
        held = self.gradients or [None] * len(gradients)
        pairs = zip(held, gradients, strict=True)
        self.gradients = [new if old is None else old if new is None else old + new for old, new in pairs]

    def message_of_gradients(self, dtype: torch.dtype) -> tuple[list[int], Tensor]:
        """Which parameters are trained, and their whole gradients, rank-major (n * share,); zeros where there are none."""
        n = self.groups.shard.size()
        trained = [k for k, shard in enumerate(self.shards) if shard.requires_grad]
        gradients, self.gradients = self.gradients, []
        rows = [
            self.shards[k].new_zeros(n, self.chunks[k], dtype=dtype)
            if (g := gradients[k]) is None
            else _padded(g, n * self.chunks[k]).view(n, -1)
            for k in trained
        ]
        return trained, torch.cat([row.to(dtype) for row in rows], dim=1).view(-1)

    def add(self, trained: Sequence[int], mine: Tensor) -> None:
        """Adds this rank's part (share,) of the mean gradients to those of its shards."""
        for k, piece in zip(trained, mine.split([self.chunks[k] for k in trained]), strict=True):
            shard = self.shards[k]
            gradient = piece[: shard.numel()].view(shard.shape).to(shard.dtype)
            shard.grad = gradient if shard.grad is None else shard.grad.add_(gradient)


def _padded(tensor: Tensor, size: int) -> Tensor:
    """`tensor` as a vector of `size` elements, with zeros at its end."""
    return pad(tensor.reshape(-1), (0, size - tensor.numel())) if tensor.numel() < size else tensor.reshape(-1)


class Unshard(torch.autograd.Function):
    """From shards to whole parameters; its backward is called when all gradients of this use are complete."""

    @staticmethod
    def forward(ctx, _anchor: Tensor, use: Use, post_backward: Callable) -> tuple[Tensor, ...]:
        ctx.use, ctx.post_backward = use, post_backward
        ctx.set_materialize_grads(False)  # None for a parameter that was not used
        parameters = use.unit.parameters()
        frozen = [p for p, shard in zip(parameters, use.unit.shards, strict=True) if not shard.requires_grad]
        ctx.mark_non_differentiable(*frozen)
        return tuple(parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.post_backward(ctx.use, gradients)
        return None, None, None  # shards get theirs when they have come from the other ranks


class Zero3(State, nn.Module):
    """Wraps a model: call it like the model. Its parameters keep their names and places, and are this rank's rows.

    `module.named_parameters()` are shards along the first dimension, cut as `torch.chunk` cuts, so that the last ranks
    may have no row. Any optimizer that treats each element by itself steps them. After `backward()` each shard's
    `.grad` is its rows of the mean gradient; several backward passes add up. Inside the forward pass of a unit, and in
    its backward pass, the whole parameters stand in its module.

    Every rank has to run the same units in the same order. Parameters and buffers start from rank 0's values; buffers
    are taken from rank 0 before each forward pass in training. A parameter that a backward pass does not use counts as
    a gradient of zeros if another of its unit is used.

    Args:
        model: on its device and in its dtype already, or on the meta device (see `materialize`).
        positional: nothing; every other argument is given by name.
        compute_dtype: what parameters are gathered in and computed with (`torch.bfloat16`); inputs are converted to it.
            The shards and their gradients keep the model's own dtype.
        reduce_dtype: what gradients are sent in; by default the dtype of computation.
        reshard_after_forward: False keeps units unsharded until their backward pass, which saves an all-gather and
            costs their memory. A number k keeps a k-th of each on every rank, so that the backward pass gathers among
            k neighbors, the ranks of one node, say.
        prefetch: how many units ahead are unsharded while one computes; 0 to unshard only when needed.
        units: the modules to communicate together; by default each child of every `nn.ModuleList` and `nn.Sequential`.
        check_finite: look for NaN and infinity in the gradients; `backward()` then raises on every rank, forgets the
            gradients, and on the rank that computed them says in which parameter. False for a gradient scaler.
        group: who shares, a process group or a mesh; the default group if None. Of a mesh of two axes, the first
            replicates and the second shards, as in FSDP2: gradients are reduce-scattered along the second, and their
            shards all-reduced along the first.

    Attributes:
        module: the model.
        units: what is communicated together, the root last if there is one.
        group: the group along which parameters are sharded.
        sync: whether backward passes send their gradients; see `no_sync`.

    Raises:
        ValueError: a model without parameters, a wrong `prefetch`, ranks with different models, or a module in `units`
            that the model has not.
        RuntimeError: a parameter used in the forward pass of another unit.
    """

    guards: ClassVar[type[NoGuards]] = Guards

    def __init__(
        self,
        model: nn.Module,
        *positional: object,
        compute_dtype: torch.dtype | None = None,
        reduce_dtype: torch.dtype | None = None,
        reshard_after_forward: bool | int = True,
        prefetch: int = 1,
        units: Iterable[nn.Module] | None = None,
        check_finite: bool = True,
        group: dist.ProcessGroup | DeviceMesh | None = None,
    ) -> None:
        super().__init__()
        self._guard = self.guards(self)
        self._guard.arguments(positional, model, prefetch)
        self.groups = Groups.of(group, reshard_after_forward)
        self.module, self.group, self.prefetch, self.check_finite = model, self.groups.shard, prefetch, check_finite
        self.compute_dtype, self.reduce_dtype = compute_dtype, reduce_dtype
        self.reshard_after_forward = reshard_after_forward is True or reshard_after_forward > 1
        cuts = cut(model, self.group.size(), units)
        self._guard.model(model, units=[each.name for each in cuts], prefetch=prefetch, compute_dtype=compute_dtype)
        self.units = [Unit(part, each, self.groups, compute_dtype) for part, each in enumerate(cuts)]
        self.sync, self.mb = True, -1
        self._order = [Use(unit, 0, [], 0) for unit in sorted(self.units, key=lambda unit: unit.module is not model)]
        self._running: list[Use] = []  # those whose whole parameters stand in the model
        self._reductions: list[Iterator[None]] = []  # under way
        self._backward_task = -1  # autograd's number of the backward pass
        self._anchor = torch.empty(0, requires_grad=True)
        self._shard_parameters()
        self._register_hooks()

    def _shard_parameters(self) -> None:
        """Leaves this rank's rows in each parameter, which remains the same object in the same place."""
        for unit in self.units:
            unit.look()
            if not unit.shards[0].is_meta:
                broadcast_tensors(unit.shards, self.groups.everyone)
            for slot, parameter in zip(unit.slots, unit.shards, strict=True):
                rows = slot.shard(parameter.data, self.group.rank())
                parameter.data, parameter.grad = rows.clone(memory_format=torch.contiguous_format), None

    def _register_hooks(self) -> None:
        for unit in self.units:
            unit.module.register_forward_pre_hook(partial(self._pre_forward, unit), prepend=True)
            unit.module.register_forward_hook(partial(self._post_forward, unit), always_call=True)
        self.module.register_forward_pre_hook(self._begin_forward, prepend=True, with_kwargs=True)
        self.module.register_forward_hook(self._end_forward, always_call=True)

    def forward(self, *args, **kwargs) -> Any:
        """Runs the model on this rank's share of the batch."""
        return self.module(*args, **kwargs)

    # The forward pass.

    def _begin_forward(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Clears away what an earlier pass has left, and has autograd save handles in place of whole parameters."""
        if not _in_backward():
            self.reset()
            self.mb, last, self._order = self.mb + 1, self._order, []
            self._expected = [use.unit for use in last]
            with tag(mb=self.mb, phase="forward"):
                broadcast_tensors(
                    model.buffers() if model.training and torch.is_grad_enabled() else (), self.groups.everyone
                )
            self._guard.begin_forward()
        self._scope = saved_as_handles(self._handle_of, self._tensor_of)
        self._scope.__enter__()
        return self._converted(args), self._converted(kwargs)

    def _pre_forward(self, unit: Unit, *_: Any) -> None:
        if _in_backward():  # it is computed again, for the backward pass
            return self._pre_backward(unit.use)
        use = unit.use = Use(unit, self.mb, self._order, len(self._order))
        self._order.append(use)
        expected = self._expected[use.place : use.place + 1 + self.prefetch]
        self._begin(use, "F", "forward", expected[1:] if expected[:1] == [unit] else [])

    def _post_forward(self, unit: Unit, _module: nn.Module, _inputs: tuple, outputs: Any) -> None:
        use = unit.use
        if _in_backward() or use not in self._running:
            return
        self._end(use)
        for tensor in tensors_in(outputs):
            if tensor.requires_grad:
                use.pending = True
                tensor.register_hook(partial(self._pre_backward, use))
        if not use.pending or (self.reshard_after_forward and unit.module is not self.module):
            unit.reshard(small=use.pending)

    def _end_forward(self, *_: Any) -> None:
        self._scope.__exit__(None, None, None)
        if not _in_backward():
            self._guard.end_forward()
            for unit in self.units:
                if unit.gathering:  # it came early, and was not used
                    unit.reshard()

    # What both passes do with a unit.

    def _begin(self, use: Use, kind: str, phase: str, ahead: Iterable[Unit]) -> None:
        """Unshards the unit, puts its whole parameters into the model, and starts to unshard those that come next."""
        for unit in (use.unit, *ahead):
            with tag(part=unit.part, mb=use.mb, phase=phase):
                unit.unshard(unit.dtype)
        use.unit.wait_for_unshard()
        with torch.set_grad_enabled(kind == "B" or torch.is_grad_enabled()):
            use.unit.place(Unshard.apply(self._anchor, use, self._post_backward))
        self._running.append(use)
        is_root = use.unit.module is self.module
        use.span = nullcontext() if is_root else span(kind, part=use.unit.part, mb=use.mb)
        use.span.__enter__()
        self._guard.sample()

    def _end(self, use: Use) -> None:
        """The unit has computed: its shards stand in the model again."""
        self._running.remove(use)
        use.span.__exit__(None, None, None)
        use.unit.place(use.unit.resting)

    def _handle_of(self, tensor: Tensor) -> tuple | None:
        """What autograd saves for a tensor in the memory of whole parameters; None for any other tensor."""
        for use in self._running if tensor.layout is torch.strided else ():
            whole = use.unit.whole
            if (
                tensor.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
                and tensor.dtype == whole.dtype
            ):
                return use, tensor.size(), tensor.stride(), tensor.storage_offset(), tensor.is_conj()
        return None

    def _tensor_of(self, handle: tuple) -> Tensor:
        """The tensor again. However a backward pass comes to a unit, the unit is unsharded when its weight is asked for."""
        use, size, stride, offset, conjugate = handle
        self._pre_backward(use)
        tensor = use.unit.whole.as_strided(size, stride, offset)
        return tensor.conj() if conjugate else tensor

    # The backward pass.

    def _begin_backward(self) -> None:
        if (task := torch._C._current_graph_task_id()) != self._backward_task:
            self._backward_task = task
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)

    def _pre_backward(self, use: Use, *_: Any) -> None:
        """The gradient of the unit's output is known, or one of its parameters is needed: its backward pass is next."""
        self._begin_backward()
        if any(each.unit is use.unit for each in self._running):
            return
        for other in list(self._running):  # without a trained parameter, its end is not noticed otherwise
            if (
                not any(shard.requires_grad for shard in other.unit.shards)
                and use.unit.module not in other.unit.modules
            ):
                self._end(other)
                other.unit.reshard()
        place = len(use.order) if use.unit.module is self.module else use.place
        before = use.order[max(0, place - self.prefetch) : place]
        self._begin(use, "B", "backward", [each.unit for each in reversed(before) if each.pending])

    def _post_backward(self, use: Use, gradients: Sequence[Tensor | None]) -> None:
        """All gradients of this use are complete."""
        self._begin_backward()
        use.pending, unit = False, use.unit
        for each in [each for each in self._running if each.unit is unit]:
            self._end(each)
        unit.reshard()
        self._guard.on_gradients(unit, gradients)
        unit.collect(gradients)
        if self.sync:
            self._reduce(unit, use.mb)
        self._guard.sample()

    def _reduce(self, unit: Unit, mb: int) -> None:
        """Starts to reduce the unit's gradients, when those of the unit before have left."""
        self._advance()
        self._reductions.append(self._reduction(unit, mb))
        next(self._reductions[-1])

    def _advance(self) -> None:
        """Takes each reduction under way to its next wait."""
        self._reductions = [each for each in self._reductions if next(each, True) is None]

    def _reduction(self, unit: Unit, mb: int) -> Iterator[None]:
        """Sums the gradients over the ranks, each of which gets its rows. It stops where it would have to wait."""
        trained, unit.message = unit.message_of_gradients(self.reduce_dtype or unit.dtype)
        mine = unit.message.new_empty(unit.message.numel() // self.group.size())
        with tag(part=unit.part, mb=mb, phase="backward"):
            work = reduce_scatter(mine, unit.message, self.group)
        yield
        work.wait()
        unit.message = None
        if self.groups.replicate:
            with tag(part=unit.part, mb=mb, phase="backward"):
                work = dist.all_reduce(mine, group=self.groups.replicate, async_op=True)
            yield
            work.wait()
        unit.add(trained, mine.div_(self.groups.everyone.size()))

    def _end_backward(self) -> None:
        """Autograd is through: what is under way arrives."""
        for use in list(self._running):
            self._end(use)
        for unit in reversed(self.units):
            unit.reshard()
            if self.sync and unit.gradients:  # no_sync has left them, and this backward pass did not come here
                self._reduce(unit, self.mb)
        while self._reductions:
            self._advance()
        self._guard.after_backward()


def _in_backward() -> bool:
    """Whether autograd is running on this thread: a forward pass is then one that is computed again."""
    return torch._C._current_graph_task_id() != -1
