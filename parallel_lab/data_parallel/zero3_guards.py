"""What hardens Zero3: arguments, equal models, finite gradients, and parameters used where they are sharded."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from parallel_lab.agree.arguments import whole
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.data_parallel.zero_guards import GradientGuards
from parallel_lab.data_parallel.zero_guards import NoGuards as NoGuards
from parallel_lab.trace import recorder

_NEW = "{} is new since Zero3 was made, and not sharded: change the model first, and then make the Zero3"


class Guards(GradientGuards):
    """Those of Zero3."""

    _taken: ClassVar = WeakIdKeyDictionary()  # the parameters that any Zero3 of this process has cut

    def arguments(self, model: nn.Module, prefetch: int) -> None:
        """Refuses, before anything else, a wrong `prefetch` or a model without parameters."""
        whole("prefetch", prefetch, 0)
        if not any(p.numel() for p in model.parameters()):
            raise ValueError("Zero3 got a model without parameters")

    def model(self, model: nn.Module, **settings: object) -> None:
        """Refuses models that differ or are sharded already; has each module look whether it is whole when it runs."""
        for name, parameter in model.named_parameters():
            if parameter in self._taken:
                raise ValueError(
                    f"{name} is sharded already, by another Zero3, and is whole only inside the forward pass of that."
                    " Put models that share parameters into one nn.Module, and wrap that."
                )
        meta = all(p.is_meta for p in model.parameters())
        check_same_model(model, self.group, technique="zero3", meta=meta, **settings)
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
        """Refuses what would go wrong, and puts a sentence where a parameter stands that is not unsharded."""
        for module in self.zero.module.modules():
            if getattr(module, "_compiled_call_impl", None) is not None:
                text = f"{type(module).__name__} is compiled, and torch.compile cannot trace how Zero3 unshards"
                raise RuntimeError(f"{text}: compile functions that the modules call, or use FSDP2 for that")
        self.problem = None
        self._look_for_changes()
        for unit in self.zero.units:
            unit.resting = [Sharded.like(shard, slot) for shard, slot in zip(unit.shards, unit.slots, strict=True)]
            unit.place(unit.resting)

    def _look_for_changes(self) -> None:
        """Raises RuntimeError for a parameter whose gradient would not be averaged, or with a hook."""
        homes = set()
        for unit in self.zero.units:
            for slot, shard in zip(unit.slots, unit.shards, strict=True):
                homes.update(slot.homes)
                if shard.shape != slot.shape_of_shard(self.zero.group.rank()):
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
        """The whole gradients of a unit are complete on this rank."""
        for slot, gradient in zip(unit.slots, gradients, strict=True):
            if gradient is not None:
                self.look_at(slot.name, gradient)

    def after_backward(self) -> None:
        """Refuses mean gradients that are not finite on some rank: they are forgotten then."""
        self.sample()
        if self.zero.sync and self.zero.check_finite:
            self.refuse(len(self.zero.units), self.zero.mb)

    @property
    def group(self) -> dist.ProcessGroup:
        """Whose ranks agree."""
        return self.zero.groups.everyone

    def sample(self) -> None:
        """Notes what is held, all kinds at one moment, for the picture of memory over time."""
        if recorder().enabled:
            shards = self.zero.slots
            whole = [t for each in self.zero.units for t in (each.whole, each.gathering and each.gathering[1])]
            sent = [t for each in self.zero.units for t in (each.message, *each.gradients)]
            kinds = {"parameters": shards, "gradients": [p.grad for p in shards], "unsharded": whole, "buckets": sent}
            for kind, tensors in kinds.items():
                recorder().sample(sum(t.nbytes for t in tensors if t is not None), kind)


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
        given = (*args, *(kwargs or {}).values())
        raise RuntimeError(_text(next((t.name_in_model for t in given if isinstance(t, Sharded)), "a parameter")))


def _text(name: str) -> str:
    return (
        f"{name} is sharded by Zero3, and its unit is not unsharded now. A parameter is whole only inside the forward"
        " pass of its own unit: call the Zero3 model, or make the modules that use it one unit (units=)."
    )
