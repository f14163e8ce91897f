"""What hardens Zero1 and Zero2: arguments, equal models, finite gradients, models that changed after they were wrapped.

The techniques call a guard at named seams. `NoGuards` has the same seams and does nothing at them: with it, `zero1.py`
and `zero2.py` are the algorithm alone, and parity tests run that as well (`guards = NoGuards` in a subclass).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from parallel_lab.agree import finite
from parallel_lab.agree.arguments import check_rate, no_positional, rate_problem
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.data_parallel.autograd import in_backward
from parallel_lab.data_parallel.flat_vector import FlatVector
from parallel_lab.trace import tag


class NoGuards:
    """The seams, at which nothing happens.

    Args:
        zero: the Zero1 or Zero2 that is guarded. Its attributes are read at the seams, not before.
    """

    def __init__(self, zero: Any) -> None:
        self.zero, self.technique = zero, type(zero).__name__

    def arguments(self, positional: tuple, params: Sequence, optimizer_kwargs: Mapping) -> None:
        """What the constructor was called with, before anything else."""

    def groups(self, trained: Iterable[tuple[str, nn.Parameter]], groups: Iterable[Mapping]) -> None:
        """The parameters that are to be trained, and the groups in which the optimizer got them."""

    def model(self, model: nn.Module, group: dist.ProcessGroup, **settings: object) -> None:
        """The model that is to be sharded, before anything is sent or moved."""

    def hooked(self, parameter: nn.Parameter, hook: RemovableHandle) -> None:
        """A `hook` was set on `parameter`."""

    def forward(self, model: nn.Module) -> None:
        """Before each forward pass that autograd records."""

    def on_gradient(self, name: str, missing: bool) -> None:
        """The gradient of parameter `name` has come; `missing` says whether it was still expected."""

    def on_bucket(self, vector: FlatVector, gradients: Tensor) -> None:
        """A bucket is full: `gradients` (numel,) are this rank's, and leave now."""

    def after_backward(self, mb: int) -> None:
        """The mean gradients of backward pass `mb` are there."""

    def before_step(self, mb: int) -> None:
        """Before anything is changed by a step."""

    def after_step(self) -> None:
        """The weights are those of the optimizer: after each step, and when all is made."""


class Guards(NoGuards):
    """Refuses on the rank that is at fault, before anything is changed on any rank."""

    _problem: Exception | None = None
    _hooks: ClassVar = WeakIdKeyDictionary()  # of all models of this process

    def arguments(self, positional: tuple, params: Sequence, optimizer_kwargs: Mapping) -> None:
        """TypeError for an argument without a name or a rate that is no number; ValueError for a negative rate."""
        no_positional(self.technique, positional, "..., optimizer_class, lr=..., group=...")
        if not params:
            raise ValueError(f"{self.technique} got no parameters: a generator that was used up, or an empty model")
        check_rate(dict(optimizer_kwargs))
        if problem := rate_problem(each for each in params if isinstance(each, dict)):
            raise problem

    def groups(self, trained: Iterable[tuple[str, nn.Parameter]], groups: Iterable[Mapping]) -> None:
        """ValueError for a trained parameter in no group: it would get gradients, and never move."""
        given = {p for group in groups for p in group["params"]}
        for name, parameter in trained:
            if parameter not in given:
                raise ValueError(f"{name} is to be trained and is in no group of param_groups: add it, or freeze it")

    def model(self, model: nn.Module, group: dist.ProcessGroup, **settings: object) -> None:
        """ValueError if nothing is to be trained, or if the ranks' models differ."""
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f"{self.technique} got no parameter to train: all have requires_grad=False")
        check_same_model(model, group, technique=self.technique, **settings)

    def hooked(self, parameter: nn.Parameter, hook: RemovableHandle) -> None:
        """Removes the hook of a Zero2 that had the parameter before, and would take its gradients away."""
        if before := self._hooks.get(parameter):
            before.remove()
        self._hooks[parameter] = hook

    def forward(self, model: nn.Module) -> None:
        """Ends a backward pass that raised; ValueError for a trained parameter that was not one when this was made."""
        self._problem = None
        if self.zero.running and not in_backward():
            self.zero.end_backward()  # sends the rest, for which other ranks may wait
            self.zero.zero_grad()
        sharded = {p for vector in self.zero.vectors for p in vector.parameters}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter not in sharded:
                raise self._new(name, "requires a gradient now")

    def on_gradient(self, name: str, missing: bool) -> None:
        """ValueError for a gradient that comes twice: its bucket may have left."""
        if not missing:
            raise ValueError(
                f"{self._rank}: the gradient of {name} came twice in one backward pass; with activation checkpointing,"
                " pass use_reentrant=False"
            )

    def on_bucket(self, vector: FlatVector, gradients: Tensor) -> None:
        """Looks for NaN and infinity while it is known whose they are."""
        if not self.zero.check_finite or self._problem is not None or finite.is_finite(gradients):
            return
        found = (i for i in range(len(vector.names)) if not finite.is_finite(vector.view(gradients, i)))
        self._problem = finite.gradient_problem(vector.names[next(found)], self._rank)

    def after_backward(self, mb: int) -> None:
        """ValueError on every rank if a gradient was not finite on one; the gradients are forgotten then.

        With `check_finite=False` the gradients of every rank become NaN instead. A gradient scaler sees the shards of
        its own rank alone, and so skips the step on every rank or on none.
        """
        problem, self._problem = self._problem, None
        with tag(part=0, mb=mb, phase="backward"):
            if not self.zero.check_finite:
                self._spread_nan()
                return
            try:
                agree(problem, self.zero.group, self._device)
            except ValueError:
                self.zero.zero_grad()
                raise

    def _spread_nan(self) -> None:
        gradients = [piece.view.grad for piece in self.zero.pieces if piece.view.grad is not None]
        flag = torch.tensor([float(not all(map(finite.is_finite, gradients)))], device=self._device)
        dist.all_reduce(flag, dist.ReduceOp.MAX, self.zero.group)
        if flag.item():
            for gradient in gradients:
                gradient.fill_(float("nan"))

    def before_step(self, mb: int) -> None:
        """ValueError or TypeError on every rank if one of them cannot step."""
        problem = self._changed() or self._problem_of_step() or rate_problem(self.zero.param_groups)
        with tag(part=0, mb=mb, phase="step"):
            agree(problem, self.zero.group, self._device)
        for piece in self.zero.pieces:
            if piece.shard is not piece.view and piece.parameter._version != self._versions[piece.parameter]:
                piece.shard.copy_(piece.view)  # weights that were loaded or clamped since: master copies follow

    def after_step(self) -> None:
        """Remembers how often each parameter was changed in place so far."""
        self._versions = {piece.parameter: piece.parameter._version for piece in self.zero.pieces}

    def _problem_of_step(self) -> ValueError | None:
        return None

    def _changed(self) -> ValueError | None:
        """The error for a parameter that is no longer a view of its flat vector."""
        for vector in self.zero.vectors:
            for index, parameter in enumerate(vector.parameters):
                if parameter.numel() and parameter.data_ptr() != vector.view(vector.data, index).data_ptr():
                    made = f"{self.technique} was made: call model.to(...) before {self.technique}(...)"
                    return ValueError(f"{vector.names[index]} was moved after {made}")
        return None

    def _new(self, name: str, what: str) -> ValueError:
        return ValueError(
            f"{name} was frozen or not there when {self.technique} was made, and {what}: make a new {self.technique}."
            " To thaw a parameter later, freeze it after that."
        )

    @property
    def _rank(self) -> str:
        return f"rank {self.zero.group.rank()}"

    @property
    def _device(self) -> torch.device:
        return self.zero.vectors[0].data.device


class StepGuards(Guards):
    """Those of Zero1, which sees gradients when it steps, and not before."""

    def _problem_of_step(self) -> ValueError | None:
        return self._thawed() or (self._not_finite() if self.zero.check_finite else None)

    def _thawed(self) -> ValueError | None:
        sharded = {p for vector in self.zero.vectors for p in vector.parameters}
        for parameter, name in self.zero.names.items():
            if parameter.grad is not None and parameter not in sharded:
                return self._new(name, "has a gradient now")
        return None

    def _not_finite(self) -> ValueError | None:
        for piece in self.zero.pieces:
            gradient = piece.gradient()
            if gradient is not None and not finite.is_finite(gradient):
                return finite.gradient_problem(piece.name, self._rank)
        return None
