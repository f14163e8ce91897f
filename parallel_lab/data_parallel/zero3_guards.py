"""What hardens Zero3: arguments, equal models, finite gradients, parameters used where they are sharded; and samples.

The technique calls a guard at named seams. `NoGuards` has the same seams and does nothing at them: with it, `zero3.py`
is the algorithm alone, and parity tests run that as well (`guards = NoGuards` in a subclass).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from parallel_lab.agree import finite
from parallel_lab.agree.arguments import no_positional, whole
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.trace import recorder, tag

_NEW = "{} is new since Zero3 was made, and not sharded: change the model first, and then make the Zero3"


class NoGuards:
    """The seams, at which nothing happens.

    Args:
        zero: what is guarded. Its attributes are read at the seams, not before.
    """

    def __init__(self, zero: Any) -> None:
        self.zero = zero

    def arguments(self, positional: Sequence, model: nn.Module, prefetch: int) -> None:
        """What the constructor was called with, before anything else."""

    def model(self, model: nn.Module, **settings: object) -> None:
        """The model that is to be sharded, before anything is sent or moved."""

    def begin_forward(self) -> None:
        """A forward pass begins."""

    def end_forward(self) -> None:
        """A forward pass is over, or has raised."""

    def on_gradients(self, unit: Any, gradients: Sequence[Tensor | None]) -> None:
        """The whole gradients of a unit are complete on this rank."""

    def after_backward(self) -> None:
        """The mean gradients are there."""

    def sample(self) -> None:
        """Something was unsharded, resharded or sent."""


class Guards(NoGuards):
    """Refuses on the rank that is at fault, before anything is changed on any rank."""

    _problem: Exception | None = None
    _taken: ClassVar = WeakIdKeyDictionary()  # the parameters that any Zero3 of this process has cut

    def arguments(self, positional: Sequence, model: nn.Module, prefetch: int) -> None:
        """Raises TypeError or ValueError for what makes no sense on this rank alone."""
        no_positional("Zero3", tuple(positional), "model, compute_dtype=…, prefetch=…, units=…, group=…")
        whole("prefetch", prefetch, 0)
        if not any(p.numel() for p in model.parameters()):
            raise ValueError("Zero3 got a model without parameters")

    def model(self, model: nn.Module, **settings: object) -> None:
        """Raises ValueError on the ranks whose model or settings differ; has each module look whether it is whole.

        And where a parameter is cut already: by a Zero3 around this model, or around another that shares it.
        """
        for name, parameter in model.named_parameters():
            if parameter in self._taken:
                text = (
                    f"{name} is sharded already, by another Zero3: it is whole only inside the forward pass of that one"
                )
                raise ValueError(f"{text}. Put models that share parameters into one nn.Module, and wrap that.")
        meta = all(p.is_meta for p in model.parameters())
        check_same_model(model, self.zero.groups.everyone, technique="zero3", meta=meta, **settings)
        self._taken.update(dict.fromkeys(model.parameters(), True))
        for module in model.modules():
            if any(p is not None and p.numel() for p in module._parameters.values()):
                module.register_forward_pre_hook(self._look)

    def _look(self, module: nn.Module, _inputs: Any) -> None:
        """Raises RuntimeError if a module runs whose parameters are sharded: rows alone would give wrong results."""
        running = [use.unit for use in self.zero._running]
        for unit in self.zero.units if not any(module in unit.modules for unit in running) else ():
            if name := next((s.name for s in unit.slots for home in s.homes if home.module is module), ""):
                raise RuntimeError(_text(name))

    def begin_forward(self) -> None:
        """Puts a sentence where a parameter stands that is not unsharded: its rows alone would give wrong results.

        Raises:
            RuntimeError: a module of the model is compiled; or a parameter is new, or has a hook.
        """
        for module in self.zero.module.modules():
            if getattr(module, "_compiled_call_impl", None) is not None:
                text = f"{type(module).__name__} is compiled, and torch.compile cannot trace how Zero3 unshards"
                raise RuntimeError(f"{text}: compile functions that the modules call, or use FSDP2 for that")
        self._problem = None
        self._look_for_changes()
        for unit in self.zero.units:
            unit.resting = [Sharded.like(shard, slot) for shard, slot in zip(unit.shards, unit.slots, strict=True)]
            unit.place(unit.resting)

    def _look_for_changes(self) -> None:
        """Raises RuntimeError for a parameter whose gradient would not be averaged, or with a hook."""
        rank, homes = self.zero.group.rank(), set()
        for unit in self.zero.units:
            for slot, shard in zip(unit.slots, unit.shards, strict=True):
                homes.update(slot.homes)
                if shard.shape != slot.shape_of_shard(rank):
                    raise RuntimeError(_NEW.format(slot.name))
                if shard._backward_hooks or shard._post_accumulate_grad_hooks:
                    text = f"{slot.name} has a hook, which Zero3 would not call: autograd sees the whole parameter"
                    raise RuntimeError(f"{text}, not the shard. Remove it, and change .grad after backward().")
        for prefix, module in self.zero.module.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is not None and parameter.numel() and (module, attribute) not in homes:
                    raise RuntimeError(_NEW.format(f"{prefix}.{attribute}".lstrip(".")))

    def end_forward(self) -> None:
        """Puts the shards back."""
        for unit in self.zero.units:
            unit.resting = unit.shards
            unit.place(unit.resting)

    def on_gradients(self, unit: Any, gradients: Sequence[Tensor | None]) -> None:
        """Looks for NaN and infinity, here where it is known whose they are."""
        for slot, gradient in zip(unit.slots, gradients, strict=True):
            if self.zero.check_finite and not self._problem and gradient is not None and not finite.is_finite(gradient):
                self._problem = finite.gradient_problem(slot.name, f"rank {self.zero.groups.everyone.rank()}")

    def after_backward(self) -> None:
        """Raises ValueError on every rank, with all gradients forgotten, if a gradient of one was not finite."""
        self.sample()
        if not self.zero.sync or not self.zero.check_finite:
            return
        problem, self._problem = self._problem, None
        try:
            with tag(part=len(self.zero.units), mb=self.zero.mb, phase="backward"):
                agree(problem, self.zero.groups.everyone, self.zero.units[0].shards[0].device)
        except ValueError:
            self.zero.zero_grad()
            raise

    def sample(self) -> None:
        """Notes the bytes that come and go, for the picture of memory over time."""
        keeper = recorder()
        if keeper.enabled:
            units = self.zero.units
            whole = [t for unit in units for t in (unit.whole, unit.gathering and unit.gathering[1]) if t is not None]
            sent = [t for unit in units for t in (unit.message, *unit.gradients) if t is not None]
            keeper.sample(sum(t.nbytes for t in whole), "unsharded")
            keeper.sample(sum(t.nbytes for t in sent), "buckets")


_HARMLESS = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "requires_grad", "is_meta", "is_sparse", "ndim")
} | {Tensor.untyped_storage, Tensor.numel, Tensor.size, Tensor.dim}


class Sharded(Tensor):
    """What stands for a parameter that is not unsharded. Its shape and dtype can be asked for; all else raises."""

    name_in_model: str

    @classmethod
    def like(cls, shard: Tensor, slot: Any) -> "Sharded":
        """The stand-in for the parameter of `slot`, of which `shard` are this rank's rows. It has no memory."""
        empty = torch.empty(slot.shape, dtype=shard.dtype, device=shard.device)
        empty.untyped_storage().resize_(0)
        stand_in = torch.Tensor._make_subclass(cls, empty, shard.requires_grad)
        stand_in.name_in_model = slot.name
        return stand_in

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Raises, unless nothing but the description of the tensor is asked for."""
        if func in _HARMLESS:
            return super().__torch_function__(func, types, args, kwargs or {})
        names = [each.name_in_model for each in (*args, *(kwargs or {}).values()) if isinstance(each, Sharded)]
        raise RuntimeError(_text((names or ["a parameter"])[0]))


def _text(name: str) -> str:
    return (
        f"{name} is sharded by Zero3, and its unit is not unsharded now. A parameter is whole only inside the forward"
        " pass of its own unit: call the Zero3 model, or make the modules that use it one unit (units=)."
    )
