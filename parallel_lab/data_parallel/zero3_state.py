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
from parallel_lab.runtime import gather


class State(Wrapped):
    """The part of `Zero3` that saves and loads."""

    instead = (
        "a Zero3 holds a process group and one rank's shards, so it cannot be copied, pickled or returned from a rank."
        " Take full_state_dict() for the whole model, or shard_state() for this rank's part."
    )
    units: list[Any]  # what is communicated together, the root last
    groups: Any  # over whom it is sharded
    compute_dtype: torch.dtype | None  # what parameters are gathered in and computed with; None for their own
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

    def _converted(self, value: Any) -> Any:
        """Inputs in the dtype of computation."""
        if isinstance(value, Tensor) and value.is_floating_point() and self.compute_dtype:
            return value.to(self.compute_dtype)
        if type(value) is dict:
            return {key: self._converted(each) for key, each in value.items()}
        return tuple(map(self._converted, value)) if type(value) is tuple else value

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

    @property
    def slots(self) -> dict[Tensor, Slot]:
        """Which parameter each shard is of."""
        return {shard: slot for unit in self.units for shard, slot in zip(unit.shards, unit.slots, strict=True)}

    @property
    def device(self) -> torch.device:
        """Where the shards are."""
        return self.units[0].shards[0].device

    @torch.no_grad()
    def full_state_dict(self: Any) -> dict[str, Tensor]:
        """The whole model, as its `state_dict()` was before it was sharded; every rank calls it, and gets it.

        Values have the dtype of the shards. One unit at a time is held beside the result.
        """
        self.reset()
        whole: dict[Tensor, Tensor] = {}
        exchange, self.exchange = self.exchange, gather  # exactly as they are
        try:
            for unit in self.units:
                self.unshard(unit, unit.shards[0].dtype)
                self.wait_for_unshard(unit)
                whole |= zip(unit.shards, checkpoint.copied(unit.parameters()), strict=True)
                self.reshard(unit)
        finally:  # training goes on as it was, also after an error
            self.exchange = exchange
        held = self.module.state_dict(keep_vars=True)
        return {name: whole[v] if v in whole else checkpoint.copied(v) for name, v in held.items()}

    def shard_state(self, optimizer: torch.optim.Optimizer | None = None) -> checkpoint.Shard:
        """What this rank holds, and what `optimizer` holds of it, in the form that `checkpoint.py` describes."""
        return self._held(optimizer).save()

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

    def _held(self, optimizer: torch.optim.Optimizer | None) -> checkpoint.Held:
        self.reset()
        slots, rank = self.slots, self.group.rank()
        parts = [checkpoint.Part(slot.name, slot.shape, slot.first(rank), shard) for shard, slot in slots.items()]
        names = {shard: slot.name for shard, slot in slots.items()}
        groups = checkpoint.groups_of(optimizer.param_groups, names) if optimizer else ()
        return checkpoint.Held(self.groups.everyone, self.device, parts, optimizer, groups, self.module)

    @torch.no_grad()
    def materialize(self, device: torch.device | str, init: Callable[[nn.Module], None] | None = None) -> None:
        """Gives a model on the meta device its memory, module by module, and its first values, those of rank 0.

        `init` is called with each module, and sets the parameters and buffers that this module itself has, which are
        whole then; by default it calls `reset_parameters()`.
        """
        self.reset()
        self.module.to_empty(device=torch.device(device))
        for unit in self.units:
            unit.look()
            unit.place(unit.shards)  # tied ones have come apart
        slots, whole = self.slots, {}
        for module in self.module.modules():
            here = [(p, slot) for p, slot in slots.items() if any(home.module is module for home in slot.homes)]
            for shard, slot in here:
                if shard not in whole:
                    whole[shard] = nn.Parameter(shard.new_empty(slot.shape), requires_grad=shard.requires_grad)
                    slot.place(whole[shard])
            (init or _reset_parameters)(module)
            for shard, slot in here:
                if slot.homes[-1].module is module:
                    broadcast_tensors([whole[shard]], self.groups.everyone)
                    shard.copy_(slot.shard(whole.pop(shard), self.group.rank()))
                    slot.place(shard)


def _reset_parameters(module: nn.Module) -> None:
    """What most modules of torch have to set their own parameters and buffers."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
