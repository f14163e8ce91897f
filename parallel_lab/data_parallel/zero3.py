"""ZeRO, stage 3, as FSDP2 does it: each rank keeps an n-th of every parameter, and has the whole only while it is used.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.3. Units and
prefetching are those of Zhao et al. 2023, "PyTorch FSDP", sections 3.2 and 3.3; the cut of each parameter along its
first dimension, and the words, are those of `torch.distributed.fsdp.fully_shard`.
Before a unit computes, in either direction, it is *unsharded*: one all-gather brings all of its parameters. After it,
it is *resharded*: the whole parameters are dropped. Its gradients are reduce-scattered as soon as they are complete.
While one unit computes, the next is on its way.

    sharded                parameters, gradients and moments
    replicated             buffers; on a mesh of two axes also the shards, along the first
    sent per step and rank (n-1)/n N elements in the forward pass, (n-1)/n N in the backward pass, and (n-1)/n N
                           of gradients. The root unit, which is used at both ends of the forward pass, stays unsharded
                           until the backward pass is over, so it is gathered once; without `reshard_after_forward`,
                           so is every unit
    held per rank          under Adam 16/n bytes per parameter, in float32 as with `compute_dtype`; beside that the root
                           and at most 1 + `prefetch` units unsharded, one message, and the gradients of two units

N is the number of parameters (the paper's Psi), of which each counts as n times ceil(rows / n) rows (`units.padded`).
The plan is in `zero3_plan.py`. Others do the rest: `units.py` cuts the model and packs messages, `zero3_saved.py` lets
go of what autograd saves, `zero3_state.py` saves and loads, `zero3_guards.py` refuses what cannot go well.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.compat import at_end_of_backward
from parallel_lab.data_parallel.autograd import in_backward, on_gradient
from parallel_lab.data_parallel.units import Unit, Unshard, Use, cut
from parallel_lab.data_parallel.zero3_groups import Groups
from parallel_lab.data_parallel.zero3_guards import Guards
from parallel_lab.data_parallel.zero3_plan import plan as plan
from parallel_lab.data_parallel.zero3_saved import without_memory_of
from parallel_lab.data_parallel.zero3_state import State
from parallel_lab.runtime import gather
from parallel_lab.trace import span, tag


class Zero3(State):
    """Wraps a model: call it like the model. Its parameters keep their names and places, and are this rank's rows.

    `module.named_parameters()` are shards along the first dimension, cut as `torch.chunk` cuts, so that the last ranks
    may have no row. Any optimizer that treats each element by itself steps them. After `backward()` each shard's
    `.grad` is its rows of the mean gradient; several backward passes add up. The whole parameters stand in a unit's
    module while it computes, in either direction.

    Every rank has to run the same units in the same order. Parameters start from rank 0's values; buffers are taken
    from rank 0 before each forward pass in training. A parameter that a backward pass does not use counts as a gradient
    of zeros if another of its unit is used.

    Clip with `data_parallel.clip_grad_norm_(zero3, max_norm)`. Torch's own takes the norm of this rank's shards alone,
    so every rank scales by another factor, and nothing says so.

    Args:
        model: on its device and in its dtype already, or on the meta device (see `materialize`).
        compute_dtype: what parameters are gathered in and computed with (`torch.bfloat16`); inputs are converted to it.
            The shards and their gradients keep the model's own dtype.
        reduce_dtype: what gradients are sent in; by default the dtype of computation.
        reshard_after_forward: False keeps units unsharded until their backward pass, which saves an all-gather. A
            number k keeps a k-th of each on every rank: the backward pass gathers among k neighbors, of one node, say.
        prefetch: how many units ahead are unsharded while one computes; 0 to unshard only when needed.
        units: the modules to communicate together; by default each child of every `nn.ModuleList` and `nn.Sequential`.
        check_finite: as in `Zero2`.
        exchange: with what units travel, in place of `runtime/gather.py`: an object with the same two functions.
        group: a process group or a mesh. Of a mesh of two axes, the first replicates and the second shards, as in
            FSDP2: gradients are reduce-scattered along the second, and their shards all-reduced along the first.

    Raises:
        ValueError: a model without parameters, a wrong `prefetch`, ranks with different models, or a module in `units`
            that the model has not.
        RuntimeError: a parameter used in the forward pass of another unit.
    """

    guards: ClassVar[type] = Guards

    @keyword_only()
    def __init__(
        self,
        model: nn.Module,
        *,
        compute_dtype: torch.dtype | None = None,
        reduce_dtype: torch.dtype | None = None,
        reshard_after_forward: bool | int = True,
        prefetch: int = 1,
        units: Iterable[nn.Module] | None = None,
        check_finite: bool = True,
        exchange: Any = None,
        group: dist.ProcessGroup | DeviceMesh | None = None,
    ) -> None:
        guard = self.guards(self)
        guard.arguments(model, prefetch)
        groups = Groups.of(group, reshard_after_forward)
        super().__init__(model, groups.shard)
        self._guard, self.groups, self.prefetch, self.check_finite = guard, groups, prefetch, check_finite
        self.compute_dtype, self.reduce_dtype, self.exchange = compute_dtype, reduce_dtype, exchange or gather
        self.units = cut(model, self.group.size(), units, compute_dtype)
        guard.model(model, units=[unit.name for unit in self.units], prefetch=prefetch, compute_dtype=compute_dtype)
        self._shard()

    def _shard(self) -> None:
        """Leaves this rank's rows of rank 0's values, and comes in where the model and its units compute."""
        self.mb, self._running, self._reductions, self._backward_pass = -1, [], [], -1
        self._order = [Use(unit) for unit in sorted(self.units, key=lambda unit: unit.module is not self.module)]
        for unit in self.units:
            broadcast_tensors([p for p in unit.shards if not p.is_meta], self.groups.everyone)
            unit.keep_rows(self.group.rank())
            unit.module.register_forward_pre_hook(partial(self._pre_forward, unit), prepend=True)
            unit.module.register_forward_hook(partial(self._post_forward, unit), always_call=True)
        self.module.register_forward_pre_hook(self._begin_forward, prepend=True, with_kwargs=True)
        self.module.register_forward_hook(self._end_forward, always_call=True)

    # Communication: the whole parameters of a unit come and go, its gradients leave.

    def unshard(self, unit: Unit, dtype: torch.dtype) -> None:
        """Starts the all-gather, unless the whole parameters are there or on their way."""
        if unit.whole is None and unit.gathering is None:
            mine = unit.packed_shards(dtype) if unit.small is None else unit.small
            group = self.group if unit.small is None else self.groups.small
            message = mine.new_empty(group.size() * mine.numel())
            unit.gathering = self.exchange.all_gather(message, mine, group), message, mine

    def wait_for_unshard(self, unit: Unit) -> None:
        """Waits for the all-gather."""
        if unit.gathering:
            (work, message, _), unit.gathering = unit.gathering, None
            work.wait()
            unit.whole = unit.unpacked(message) if unit.small is None else message

    def reshard(self, unit: Unit, small: bool = False) -> None:
        """Drops the whole parameters; with `small`, all but this rank's part among fewer ranks."""
        if unit.gathering:
            unit.gathering[0].wait()
        unit.small = unit.part_of_whole(self.groups.small) if small else None
        unit.whole = unit.gathering = None

    def _reduction(self, unit: Unit, mb: int) -> Iterator[None]:
        """Sums the gradients over the ranks, each of which gets its rows. It stops where it would have to wait."""
        unit.message = unit.packed_gradients(self.reduce_dtype or unit.dtype)
        mine = unit.message.new_empty(unit.message.numel() // self.group.size())
        names = {"part": unit.part, "mb": mb, "phase": "backward"}
        with tag(**names):
            work: Any = self.exchange.reduce_scatter(mine, unit.message, self.group)
        yield
        work.wait()
        unit.message = None
        if self.groups.replicate:
            with tag(**names):
                work = dist.all_reduce(mine, group=self.groups.replicate, async_op=True)
            yield
            work.wait()
        unit.add(mine.div_(self.groups.everyone.size()))

    def _reduce(self, unit: Unit, mb: int) -> None:
        """Starts to reduce the unit's gradients, when those of the unit before have left."""
        self._advance()
        self._reductions.append(self._reduction(unit, mb))
        next(self._reductions[-1])

    def _advance(self) -> None:
        """Takes each reduction under way to its next wait."""
        self._reductions = [each for each in self._reductions if next(each, True) is None]

    # What both passes do with a unit.

    def _begin(self, use: Use, kind: str, phase: str, ahead: Iterable[Unit]) -> None:
        """Unshards the unit, puts its whole parameters into the model, and starts to unshard those that come next."""
        for unit in (use.unit, *ahead):
            with tag(part=unit.part, mb=use.mb, phase=phase):
                self.unshard(unit, unit.dtype)
        self.wait_for_unshard(use.unit)
        with torch.set_grad_enabled(kind == "B" or torch.is_grad_enabled()):
            use.unit.place(Unshard.apply(torch.empty(0, requires_grad=True), use, self._post_backward))
        self._running.append(use)
        use.span = nullcontext() if use.unit.module is self.module else span(kind, part=use.unit.part, mb=use.mb)
        use.span.__enter__()
        self._guard.sample()

    def _end(self, use: Use) -> None:
        """The unit has computed: its shards stand in the model again."""
        self._running.remove(use)
        use.span.__exit__(None, None, None)
        use.unit.place(use.unit.resting)

    # The forward pass.

    def _begin_forward(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if not in_backward():
            self.reset()
            self.mb, self._expected, self._order = self.mb + 1, self._order, []
            buffers = self.module.buffers() if self.module.training and torch.is_grad_enabled() else ()
            broadcast_tensors(buffers, self.groups.everyone, mb=self.mb, phase="forward")
            self._guard.begin_forward()
        self._saved = without_memory_of(lambda: [(use, use.unit.whole) for use in self._running], self._whole_of)
        self._saved.__enter__()
        return self._converted(args), self._converted(kwargs)

    def _pre_forward(self, unit: Unit, *_: Any) -> None:
        if in_backward():
            return self._pre_backward(unit.use)  # activations are computed again
        use = unit.use = Use(unit, self.mb, self._order, len(self._order))
        self._order.append(use)
        self._begin(use, "F", "forward", use.after(self._expected, self.prefetch))

    def _post_forward(self, unit: Unit, _module: nn.Module, _inputs: tuple, outputs: Any) -> None:
        if in_backward() or (use := unit.use) not in self._running:
            return
        self._end(use)
        use.pending = on_gradient(outputs, partial(self._pre_backward, use))
        if not use.pending or (self.groups.reshards and unit.module is not self.module):
            self.reshard(unit, small=use.pending and self.groups.small is not self.group)

    def _end_forward(self, *_: Any) -> None:
        self._saved.__exit__(None, None, None)
        self._saved = nullcontext()  # where the next pass is refused, this is called again
        if not in_backward():
            self._guard.end_forward()
            for unit in [unit for unit in self.units if unit.gathering]:
                self.reshard(unit)  # it came early, and was not used

    # The backward pass.

    def _pre_backward(self, use: Use, *_: Any) -> None:
        """The gradient of the unit's output is known, or autograd asks for a parameter: its backward pass is next."""
        self._backward_pass = at_end_of_backward(self._end_backward, self._backward_pass)
        if any(each.unit is use.unit for each in self._running):
            return
        for other in [o for o in self._running if not o.unit.trained and use.unit.module not in o.unit.modules]:
            self._end(other)  # it is frozen, and nothing else tells that it is over
            self.reshard(other.unit)
        use.place = len(use.order) if use.unit.module is self.module else use.place
        self._begin(use, "B", "backward", use.before(self.prefetch))

    def _whole_of(self, use: Use) -> Tensor | None:
        """The memory of the unit's parameters: however a backward pass comes to a unit, it finds it unsharded."""
        self._pre_backward(use)
        return use.unit.whole

    def _post_backward(self, use: Use, gradients: Sequence[Tensor | None]) -> None:
        """All gradients of this use are complete."""
        self._backward_pass = at_end_of_backward(self._end_backward, self._backward_pass)
        use.pending, unit = False, use.unit
        for each in [each for each in self._running if each.unit is unit]:
            self._end(each)
        self.reshard(unit)
        self._guard.on_gradients(unit, gradients)
        unit.collect(gradients)
        if self.sync:
            self._reduce(unit, use.mb)
        self._guard.sample()

    def _end_backward(self) -> None:
        """Autograd is through: what is under way arrives."""
        for use in list(self._running):
            self._end(use)
        for unit in reversed(self.units):
            self.reshard(unit)
            if self.sync and unit.gradients:  # no_sync has left them, and this backward pass did not come here
                self._reduce(unit, self.mb)
        while self._reductions:
            self._advance()
        self._guard.after_backward()
