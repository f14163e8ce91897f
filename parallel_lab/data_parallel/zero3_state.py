"""What one does with a sharded model beside training it: save, load, make it whole, build it without memory."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.autograd import in_backward
from parallel_lab.data_parallel.units import Slot
from parallel_lab.data_parallel.wrapped import Wrapped


class State(Wrapped):
    """The part of `Zero3` that saves and loads."""

    instead = (
        "a Zero3 holds a process group and one rank's shards, so it cannot be copied, pickled or returned from a rank."
        " Take full_state_dict() for the whole model, or shard_state() for this rank's part."
    )
    units: list[Any]
    groups: Any
    compute_dtype: torch.dtype | None
    _running: list[Any]  # the uses whose whole parameters stand in the model
    _reductions: list[Any]  # of gradients, under way
    _expected: list[Any]  # the uses of the last forward pass
    _saved: Any = nullcontext()

    def reset(self: Any) -> None:
        """Drops what a pass that raised may have left, and looks which parameters stand in the model."""
        self.put_shards_back()
        self._reductions.clear()
        for unit in self.units:
            self.reshard(unit)
            unit.look()

    def put_shards_back(self: Any) -> None:
        """Puts the shards back into the model where a backward pass that raised has left whole parameters."""
        for use in [] if in_backward() else list(self._running):
            self._end(use)

    def share_buffers(self: Any) -> None:
        """In training, every rank takes rank 0's buffers."""
        if self.module.training and torch.is_grad_enabled():
            broadcast_tensors(self.module.buffers(), self.groups.everyone, mb=self.mb, phase="forward")

    def _converted(self, value: Any) -> Any:
        """Inputs in the dtype of computation."""
        if isinstance(value, Tensor) and value.is_floating_point() and self.compute_dtype:
            return value.to(self.compute_dtype)
        if type(value) in (tuple, dict):
            items = [self._converted(each) for each in (value.values() if type(value) is dict else value)]
            return dict(zip(value, items, strict=True)) if type(value) is dict else tuple(items)
        return value

    def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None:
        """As `no_sync`, from here on: False keeps gradients on the rank, True sends them."""
        self.sync = requires_gradient_sync

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of the shards, and what `no_sync` has left."""
        self.put_shards_back()
        for unit in self.units:
            unit.gradients = []
        super().zero_grad(set_to_none)

    def gradient_shards(self) -> list[Tensor]:
        """This rank's shards of the mean gradient: what `clip_grad_norm_` scales."""
        self.put_shards_back()
        return [p.grad for p in self.module.parameters() if p.grad is not None]

    @torch.no_grad()
    def full_state_dict(self: Any) -> dict[str, Tensor]:
        """The whole model, as its `state_dict()` was before it was sharded; every rank calls it, and gets it.

        Values have the dtype of the shards. One unit at a time is held beside the result.
        """
        self.reset()
        whole: dict[int, Tensor] = {}
        for unit in self.units:
            self.unshard(unit, unit.shards[0].dtype)
            self.wait_for_unshard(unit)
            for shard, value in zip(unit.shards, unit.parameters(), strict=True):
                whole[id(shard)] = value.clone()
            self.reshard(unit)
        held = self.module.state_dict(keep_vars=True)
        return {name: whole[id(v)] if id(v) in whole else checkpoint.copied(v) for name, v in held.items()}

    @property
    def slots(self) -> dict[Tensor, Slot]:
        """Which parameter each shard is of."""
        return {shard: slot for unit in self.units for shard, slot in zip(unit.shards, unit.slots, strict=True)}

    @property
    def device(self) -> torch.device:
        """Where the shards are."""
        return self.units[0].shards[0].device

    def shard_state(self, optimizer: torch.optim.Optimizer | None = None) -> checkpoint.Shard:
        """What this rank holds, and what `optimizer` holds of it, in the form that `checkpoint.py` describes."""
        return self._held(optimizer).save()

    def _held(self, optimizer: torch.optim.Optimizer | None) -> checkpoint.Held:
        self.reset()
        slots, rank = self.slots, self.group.rank()
        parts = [checkpoint.Part(slot.name, slot.shape, p.dtype, slot.first(rank), p) for p, slot in slots.items()]
        names = {shard: slot.name for shard, slot in slots.items()}
        groups = checkpoint.groups_of(optimizer.param_groups, names) if optimizer else ()
        buffers = dict(self.module.named_buffers())
        return checkpoint.Held(self.groups.everyone, self.device, parts, optimizer, groups, buffers)

    def load_shard_state(
        self, shards: Sequence[checkpoint.Shard], optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Takes over this rank's rows of the weights, and into `optimizer` those of the moments. All ranks call it.

        `shards` are what `shard_state()` of Zero1, Zero2 or Zero3 gave on every rank that saved, in any order and of
        any number of ranks; `optimizer` is of the class that was saved, with the same groups.

        Raises:
            ValueError: it says why, with nothing changed on any rank.
        """
        self._held(optimizer).load(shards)

    @torch.no_grad()
    def materialize(self, device: torch.device | str, init: Callable[[nn.Module], None] | None = None) -> None:
        """Gives a model on the meta device its memory, unit by unit, and its first values, those of rank 0.

        `init` is called with each module, and sets the parameters and buffers that this module itself has, which are
        whole then; by default it calls `reset_parameters()`.
        """
        self.reset()
        self.module.to_empty(device=torch.device(device))
        left = {unit: {home.module for slot in unit.slots for home in slot.homes} for unit in self.units}
        whole: dict[Any, list[nn.Parameter]] = {}
        for unit in self.units:
            unit.look()
            unit.place(unit.shards)  # tied ones have come apart
        for module in self.module.modules():
            units = [unit for unit in self.units if module in left[unit]]
            for unit in units:
                if unit not in whole:
                    whole[unit] = unit.empty_parameters()
                    unit.place(whole[unit])
            (init or _reset_parameters)(module)
            for unit in units:
                left[unit].discard(module)
                if not left[unit]:
                    broadcast_tensors(whole[unit], self.groups.everyone)
                    unit.take(whole.pop(unit), self.group.rank())


def _reset_parameters(module: nn.Module) -> None:
    """What most modules of torch have to set their own parameters and buffers."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
