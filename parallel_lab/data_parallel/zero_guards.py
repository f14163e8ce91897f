"""What hardens Zero1 and Zero2: arguments, equal models, finite gradients, models that changed after they were wrapped.

The seams are the public methods. All refuse on the rank that is at fault, before anything is changed on any rank.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from parallel_lab.agree import finite
from parallel_lab.agree.arguments import check_rate
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.data_parallel.autograd import in_backward
from parallel_lab.data_parallel.flat_vector import FlatVector
from parallel_lab.data_parallel.guards import Seams, came_twice
from parallel_lab.trace import tag


class NoGuards(Seams):
    """Leaves the algorithm alone, of any stage."""

    def __init__(self, zero: Any) -> None:
        super().__init__()


class GradientGuards:
    """What all stages share: a gradient that is not finite is refused on the rank that computed it."""

    problem: Exception | None = None

    def __init__(self, zero: Any) -> None:
        self.zero, self.technique = zero, type(zero).__name__

    @property
    def group(self) -> dist.ProcessGroup:
        """Whose ranks agree."""
        return self.zero.group

    @property
    def rank(self) -> str:
        """This rank, as messages name it."""
        return f"rank {self.group.rank()}"

    def look_at(self, name: str, gradient: Tensor) -> None:
        """Remembers the first gradient that is NaN or infinite, here where it is known whose it is."""
        if self.zero.check_finite and self.problem is None and not finite.is_finite(gradient):
            self.problem = finite.gradient_problem(name, self.rank)

    def refuse(self, part: int, mb: int) -> None:
        """Raises on every rank if a gradient was not finite on one; the gradients are forgotten then."""
        problem, self.problem = self.problem, None
        try:
            with tag(part=part, mb=mb, phase="backward"):
                agree(problem, self.group, self.zero.device)
        except ValueError:
            self.zero.zero_grad()
            raise


class Guards(GradientGuards):
    """Those of Zero2."""

    _hooks: ClassVar = WeakIdKeyDictionary()  # of all models of this process

    def arguments(self, params: Sequence, optimizer_kwargs: Mapping) -> None:
        """Refuses, before anything else, no parameters and learning rates that are negative or no numbers."""
        if not params:
            raise ValueError(f"{self.technique} got no parameters: a generator that was used up, or an empty model")
        for settings in [dict(optimizer_kwargs), *(each for each in params if isinstance(each, dict))]:
            check_rate(settings)

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
        self.problem = None
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
            raise came_twice(self.rank, name)

    def on_bucket(self, vector: FlatVector, gradients: Tensor) -> None:
        """A bucket is full: `gradients` (numel,) are this rank's, and leave now."""
        if self.zero.check_finite and self.problem is None and not finite.is_finite(gradients):
            for index, name in enumerate(vector.names):
                self.look_at(name, vector.view(gradients, index))

    def after_backward(self, mb: int) -> None:
        """Refuses mean gradients that are not finite on some rank: they are forgotten then.

        With `check_finite=False` the gradients of every rank become NaN if those of one are not finite. A gradient
        scaler sees the shards of its own rank alone, and so skips the step on every rank or on none.
        """
        if self.zero.check_finite:
            return self.refuse(0, mb)
        gradients = self.zero.gradient_shards()
        flag = torch.tensor([float(not all(map(finite.is_finite, gradients)))], device=self.zero.device)
        with tag(part=0, mb=mb, phase="backward"):
            dist.all_reduce(flag, dist.ReduceOp.MAX, self.group)
        for gradient in gradients if flag.item() else ():
            gradient.fill_(float("nan"))

    def before_step(self, mb: int) -> None:
        """Refuses wrong learning rates and parameters that have changed, before anything is changed on any rank."""
        problem = None
        try:
            self._check_step()
        except (TypeError, ValueError) as error:
            problem = error
        with tag(part=0, mb=mb, phase="step"):
            agree(problem, self.group, self.zero.device)
        for piece in self.zero.pieces:
            if piece.shard is not piece.view and piece.parameter._version != self._versions[piece.parameter]:
                piece.shard.copy_(piece.view)  # weights that were loaded or clamped since: master copies follow

    def after_step(self) -> None:
        """Remembers how often each parameter was changed in place: after each step, and when all is made."""
        self._versions = {piece.parameter: piece.parameter._version for piece in self.zero.pieces}

    def _check_step(self) -> None:
        one = self.technique
        for vector in self.zero.vectors:
            for index, parameter in enumerate(vector.parameters):
                if parameter.numel() and parameter.data_ptr() != vector.view(vector.data, index).data_ptr():
                    raise ValueError(
                        f"{vector.names[index]} was moved after {one} was made (model.to, .data = ..., or another"
                        f" {one} that has it too): make it after that, and one {one} for models that share parameters"
                    )
        self._check_gradients()
        for group in self.zero.param_groups:
            check_rate(group)

    def _check_gradients(self) -> None:
        """Refuses a whole gradient, which Zero2 has not sent and would not use."""
        for parameter in self.zero.sharded:
            if parameter.grad is not None and parameter.requires_grad:
                raise ValueError(
                    f"{self.rank}: the gradient of {self.zero.names[parameter]} was never sent: it was set by hand or"
                    " inside no_sync(). The last backward pass before step() has to be outside no_sync()"
                )

    def _new(self, name: str, what: str) -> ValueError:
        return ValueError(
            f"{name} was frozen or not there when {self.technique} was made, and {what}: make a new {self.technique}."
            " To thaw a parameter later, freeze it after that."
        )


class StepGuards(Guards):
    """Those of Zero1, which sees gradients when it steps, and not before."""

    def _check_gradients(self) -> None:
        sharded = self.zero.sharded
        for parameter, name in self.zero.names.items():
            if parameter.grad is not None and parameter not in sharded:
                raise self._new(name, "has a gradient now")
        self.problem = None
        for piece in self.zero.pieces:
            if (gradient := piece.gradient()) is not None:
                self.look_at(piece.name, gradient)
        if self.problem:
            raise self.problem
