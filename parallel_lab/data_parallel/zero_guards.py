"""What hardens Zero1 and Zero2: arguments, equal models, finite gradients, models that changed after they were wrapped.

The techniques call a guard at named seams, which are the public methods here. With `NoGuards` in its place, `zero1.py`,
`zero2.py` and `zero3.py` are the algorithm alone, and parity tests run that as well.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from parallel_lab.agree import finite
from parallel_lab.agree.arguments import check_rate, rate_problem
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.data_parallel.autograd import came_twice, in_backward
from parallel_lab.data_parallel.flat_vector import FlatVector
from parallel_lab.trace import tag


class NoGuards:
    """Stands where guards would, and does nothing at any seam."""

    def __init__(self, zero: Any) -> None:
        self.zero = zero

    def __getattr__(self, seam: str) -> Callable[..., None]:
        """Any seam."""
        return lambda *args, **kwargs: None


class GradientGuards:
    """What all stages share: a gradient that is not finite is refused on the rank that computed it."""

    _problem: Exception | None = None

    def __init__(self, zero: Any) -> None:
        self.zero, self.technique = zero, type(zero).__name__

    def _look_at(self, name: str, gradient: Tensor) -> None:
        """Remembers the first gradient that is NaN or infinite, here where it is known whose it is."""
        if self.zero.check_finite and self._problem is None and not finite.is_finite(gradient):
            self._problem = finite.gradient_problem(name, self._rank)

    def _agree(self, problem: Exception | None, part: int, mb: int, phase: str) -> None:
        """Raises on every rank if one has a problem."""
        with tag(part=part, mb=mb, phase=phase):
            agree(problem, self._group, self.zero.device)

    def _refuse(self, part: int, mb: int) -> None:
        """Raises on every rank if a gradient was not finite on one; the gradients are forgotten then."""
        problem, self._problem = self._problem, None
        try:
            self._agree(problem, part, mb, "backward")
        except ValueError:
            self.zero.zero_grad()
            raise

    @property
    def _group(self) -> dist.ProcessGroup:
        return self.zero.group

    @property
    def _rank(self) -> str:
        return f"rank {self._group.rank()}"


class Guards(GradientGuards):
    """Those of Zero2. They refuse on the rank that is at fault, before anything is changed on any rank."""

    _hooks: ClassVar = WeakIdKeyDictionary()  # of all models of this process

    def arguments(self, params: Sequence, optimizer_kwargs: Mapping) -> None:
        """Refuses, before anything else, no parameters and learning rates that are negative or no numbers."""
        if not params:
            raise ValueError(f"{self.technique} got no parameters: a generator that was used up, or an empty model")
        check_rate(dict(optimizer_kwargs))
        if problem := rate_problem(each for each in params if isinstance(each, dict)):
            raise problem

    def groups(self, trained: Iterable[tuple[str, nn.Parameter]], groups: Iterable[Mapping]) -> None:
        """Refuses a trained parameter that is in no group: it would get gradients, and never move."""
        given = {p for group in groups for p in group["params"]}
        for name, parameter in trained:
            if parameter not in given:
                raise ValueError(f"{name} is to be trained and is in no group of param_groups: add it, or freeze it")

    def model(self, model: nn.Module, group: dist.ProcessGroup, **settings: object) -> None:
        """Refuses a model that has nothing to train, or is not the same on all ranks, before anything is moved."""
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f"{self.technique} got no parameter to train: all have requires_grad=False")
        check_same_model(model, group, technique=self.technique, **settings)

    def hooked(self, parameter: nn.Parameter, hook: RemovableHandle) -> None:
        """Removes the hook of a Zero2 that had the parameter before, and would take its gradients away."""
        if before := self._hooks.get(parameter):
            before.remove()
        self._hooks[parameter] = hook

    def forward(self, model: nn.Module) -> None:
        """Ends a backward pass that raised, and refuses parameters that are trained only since the Zero2 was made."""
        self._problem = None
        if self.zero.running and not in_backward():
            self.zero.end_backward()  # sends the rest, for which other ranks may wait
            self.zero.zero_grad()
        sharded = self.zero.sharded
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter not in sharded:
                raise self._new(name, "requires a gradient now")

    def on_gradient(self, name: str, missing: bool) -> None:
        """Refuses a gradient that came before, and so is not `missing`: its bucket may have left."""
        if not missing:
            raise came_twice(self._rank, name)

    def on_bucket(self, vector: FlatVector, gradients: Tensor) -> None:
        """A bucket is full: `gradients` (numel,) are this rank's, and leave now."""
        if self.zero.check_finite and self._problem is None and not finite.is_finite(gradients):
            for index, name in enumerate(vector.names):
                self._look_at(name, vector.view(gradients, index))

    def after_backward(self, mb: int) -> None:
        """Refuses mean gradients that are not finite on some rank: they are forgotten then.

        With `check_finite=False` the gradients of every rank become NaN if those of one are not finite. A gradient
        scaler sees the shards of its own rank alone, and so skips the step on every rank or on none.
        """
        if self.zero.check_finite:
            self._refuse(0, mb)
        else:
            with tag(part=0, mb=mb, phase="backward"):
                self._spread_nan()

    def _spread_nan(self) -> None:
        gradients = self.zero.gradient_shards()
        flag = torch.tensor([float(not all(map(finite.is_finite, gradients)))], device=self.zero.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX, self._group)
        if flag.item():
            for gradient in gradients:
                gradient.fill_(float("nan"))

    def before_step(self, mb: int) -> None:
        """Refuses wrong learning rates and parameters that have changed, before anything is changed on any rank."""
        problem = self._moved() or self._problem_of_step() or rate_problem(self.zero.param_groups)
        self._agree(problem, 0, mb, "step")
        for piece in self.zero.pieces:
            if piece.shard is not piece.view and piece.parameter._version != self._versions[piece.parameter]:
                piece.shard.copy_(piece.view)  # weights that were loaded or clamped since: master copies follow

    def after_step(self) -> None:
        """Remembers how often each parameter was changed in place: after each step, and when all is made."""
        self._versions = {piece.parameter: piece.parameter._version for piece in self.zero.pieces}

    def _problem_of_step(self) -> Exception | None:
        """The error for a whole gradient, which Zero2 has not sent and would not use."""
        for vector in self.zero.vectors:
            for name, parameter in zip(vector.names, vector.parameters, strict=True):
                if parameter.grad is not None and parameter.requires_grad:
                    text = (
                        f"{self._rank}: the gradient of {name} was never sent: it was set by hand or inside no_sync()"
                    )
                    return ValueError(f"{text}. The last backward pass before step() has to be outside no_sync()")
        return None

    def _moved(self) -> ValueError | None:
        """The error for a parameter that is no longer a view of its flat vector."""
        for vector in self.zero.vectors:
            for index, parameter in enumerate(vector.parameters):
                if parameter.numel() and parameter.data_ptr() != vector.view(vector.data, index).data_ptr():
                    made = f"{self.technique} was made (model.to, .data = ..., or another {self.technique} that has it"
                    made += f" too): make it after that, and one {self.technique} for models that share parameters"
                    return ValueError(f"{vector.names[index]} was moved after {made}")
        return None

    def _new(self, name: str, what: str) -> ValueError:
        return ValueError(
            f"{name} was frozen or not there when {self.technique} was made, and {what}: make a new {self.technique}."
            " To thaw a parameter later, freeze it after that."
        )


class StepGuards(Guards):
    """Those of Zero1, which sees gradients when it steps, and not before."""

    def _problem_of_step(self) -> Exception | None:
        sharded = self.zero.sharded
        for parameter, name in self.zero.names.items():
            if parameter.grad is not None and parameter not in sharded:
                return self._new(name, "has a gradient now")
        self._problem = None
        for piece in self.zero.pieces:
            if (gradient := piece.gradient()) is not None:
                self._look_at(piece.name, gradient)
        return self._problem
