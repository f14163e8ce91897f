"""When Zero3's units are gathered, freed and reduced: the forward and the backward pass, hook by hook.

In the forward pass a unit's module is the place: before it runs, its parameters have to be there, and after it they can
go. In the backward pass autograd calls when the gradient of a unit's output is known, which is before any of its
parameters is needed, and when the gradient of each parameter is complete; after the last of them the unit can go. One
with frozen or unused parameters has no such last moment; it goes when the backward pass of the next unit begins.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.problem import ask
from parallel_lab.data_parallel import unit as units_
from parallel_lab.data_parallel.outputs import tensors_in
from parallel_lab.data_parallel.unit import Reduction, Unit
from parallel_lab.trace import recorder, span


class Passes:
    """The state of a step: which units are there, what is on its way, and what comes next.

    Attributes:
        order: the units but the root, in the order in which the last forward pass used them.
        sync: whether gradients are reduced.
        in_backward: whether a backward pass is running.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        model: torch.nn.Module,
        group: dist.ProcessGroup,
        prefetch: int,
        check_finite: bool,
    ) -> None:
        self.units, self.group, self.prefetch, self.check_finite = units, group, prefetch, check_finite
        self.root = next((unit for unit in units if unit.module is model), None)
        self.sync, self.in_backward = True, False
        self.order: list[Unit] = []
        self._seen: list[Unit] = []
        self._reductions: list[Reduction] = []
        self._problem: ValueError | None = None
        for unit in units:
            if unit is not self.root:
                unit.module.register_forward_pre_hook(partial(self._before_forward, unit))
                unit.module.register_forward_hook(partial(self._after_forward, unit))
            for k, f in enumerate(unit.flats):
                for i, view in enumerate(f.views if f.shard.requires_grad else ()):
                    view.register_post_accumulate_grad_hook(partial(self._arrived, unit, k, i))

    def begin_forward(self) -> None:
        """Gathers the root and the first units. What a pass that raised has left is cleared away."""
        self._land_all()
        self.in_backward, self._seen, self._problem = False, [], None
        for unit in self.units:
            unit.in_backward = False
            self._free(unit)
        if self.root:
            units_.gather(self.root, self.group, 0)
        for unit in self.order[: self.prefetch]:
            units_.gather(unit, self.group, 0)
        if self.root:
            units_.arrive(self.root)
        self._sample()

    def end_forward(self, outputs: Any) -> None:
        """Keeps the root if a backward pass is to come; frees what was prefetched and then not used."""
        self.order = self._seen
        for unit in self.units:
            if unit is not self.root:
                self._free(unit)
        if self.root and not self._expect_backward(self.root, outputs):
            self._free(self.root)
        self._sample()

    def _before_forward(self, unit: Unit, *_) -> None:
        units_.gather(unit, self.group, 0)
        if not self.in_backward:
            place = len(self._seen)
            if place < len(self.order) and self.order[place] is unit:
                for ahead in self.order[place + 1 : place + 1 + self.prefetch]:
                    units_.gather(ahead, self.group, 0)
            self._seen.append(unit)
        units_.arrive(unit)
        self._sample()
        if not self.in_backward:
            unit.span = recorder().issue("forward", part=unit.part)

    def _after_forward(self, unit: Unit, _module, _inputs, outputs: Any) -> None:
        if self.in_backward:
            return  # computed again for the backward pass (checkpointing), which needs the parameters next
        recorder().complete(unit.span)
        with span("free", part=unit.part):
            self._free(unit)
        self._expect_backward(unit, outputs)
        self._sample()

    def _expect_backward(self, unit: Unit, outputs: Any) -> bool:
        """Has autograd call when it comes to `unit`; False if it never will."""
        found = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
        if not found:
            return False
        unit.uses += 1
        fresh = [True]

        def begin(_: Tensor) -> None:
            if fresh:
                fresh.clear()
                self._before_backward(unit)

        for tensor in found:
            tensor.register_hook(begin)
        return True

    def _begin_backward(self) -> None:
        if not self.in_backward:
            self.in_backward = True
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)

    def _before_backward(self, unit: Unit) -> None:
        """The gradient of the unit's output is known: its backward pass is next, and those of later units are over."""
        self._begin_backward()
        for other in self.units:
            if other.in_backward and other.uses <= 0 and unit.module not in other.modules:
                self._finish(other)
        unit.uses, unit.in_backward = unit.uses - 1, True
        units_.gather(unit, self.group, 1)
        place = self.order.index(unit) if unit in self.order else len(self.order)
        for ahead in reversed(self.order[max(0, place - self.prefetch) : place]):
            if ahead.uses > 0:
                units_.gather(ahead, self.group, 1)
        units_.arrive(unit)
        self._sample()
        unit.span = recorder().issue("backward", part=unit.part)

    def _arrived(self, unit: Unit, k: int, i: int, _: Tensor) -> None:
        """One gradient is complete."""
        self._begin_backward()
        if not self.sync:
            return
        unit.flats[k].take(i)
        unit.pending.discard((k, i))
        if not unit.pending and unit.all_trained and unit.uses <= 0:
            self._finish(unit)

    def _finish(self, unit: Unit) -> None:
        """The unit's backward pass is over: frees its parameters and sends its gradients."""
        if unit.in_backward:
            recorder().complete(unit.span)
        unit.in_backward = False
        with span("free", part=unit.part, mb=1):
            self._free(unit)
        if self.sync and unit.begun:
            self._reduce(unit)
        self._sample()

    def _reduce(self, unit: Unit) -> None:
        for k, i in unit.pending:
            unit.flats[k].take(i)
        unit.expect()
        if self.check_finite and self._problem is None:
            self._problem = units_.problem(unit, self.group.rank())
        self._land_all()  # so that the whole gradients of two units are held at most
        self._reductions.append(Reduction(unit, self.group))

    def _end_backward(self) -> None:
        """Sends what is left, waits for everything, and has the ranks agree that all gradients were finite."""
        self.in_backward = False
        for unit in reversed(self.units):
            if unit.in_backward or unit.begun:
                self._finish(unit)
            self._free(unit)
            unit.uses = 0
        problem, self._problem = self._problem, None
        hear = (
            ask(problem, self.group, self.units[0].flats[0].shard.device) if self.sync and self.check_finite else None
        )
        self._land_all()
        self._sample()
        if hear:
            try:
                hear()
            except ValueError:
                self.forget()
                raise

    def forget(self) -> None:
        """Drops all gradients."""
        for f in (f for unit in self.units for f in unit.flats):
            f.shard.grad = f.buffer = None
            for view in f.views:
                view.grad = None

    def _land_all(self) -> None:
        while self._reductions:
            self._reductions.pop(0).land()

    def _free(self, unit: Unit) -> None:
        if unit.gathered or unit.arriving:
            units_.free(unit)

    def _sample(self) -> None:
        """Notes the bytes that come and go, for the picture of memory over time."""
        keeper = recorder()
        if keeper.enabled:
            keeper.sample(sum(unit.held_bytes for unit in self.units), "gathered")
            sent = sum(reduction.held_bytes for reduction in self._reductions)
            keeper.sample(sent + sum(unit.buffer_bytes for unit in self.units), "buckets")
