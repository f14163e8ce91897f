"""Saving and loading of Zero1 and Zero2: this rank's shard in the form of `checkpoint.py`, or whole in torch's."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree
from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.flat_vector import Piece, Sharded, copy_settings
from parallel_lab.data_parallel.wrapped import NotCopied, Wrapped


def names(groups: Iterable[Mapping[str, Any]]) -> dict[nn.Parameter, str]:
    """Each parameter's name: the one that it was given to the optimizer with, or its number."""
    named: dict[nn.Parameter, str] = {}
    for group in groups:
        for place, parameter in enumerate(group["params"]):
            named[parameter] = group["param_names"][place] if "param_names" in group else str(len(named))
    return named


def shard_state(zero: Sharded, buffers: Mapping[str, Tensor] | None) -> checkpoint.Shard:
    """What this rank holds: its pieces of weights and moments; on rank 0 also the parameters that are not sharded.

    Args:
        zero: whose state it is.
        buffers: of the model; None where it is not seen.
    """
    return _shard(zero, buffers, _entries(zero, whole=zero.group.rank() == 0))


def _entries(zero: Sharded, whole: bool) -> dict[str, checkpoint.Entry]:
    """This rank's entries; with `whole`, parameters that are not sharded are among what it holds."""
    held = {piece.parameter: piece for piece in zero.pieces}
    sharded = {p for vector in zero.vectors for p in vector.parameters}
    entries = {}
    for parameter, name in zero.names.items():
        entries[name] = checkpoint.entry(parameter.shape, parameter.dtype)
        if piece := held.get(parameter):
            state = zero.optimizer.state.get(piece.shard, {})
            entries[name] = checkpoint.entry(parameter.shape, parameter.dtype, piece.start, piece.shard, state)
        elif whole and parameter not in sharded:
            entries[name] = checkpoint.entry(parameter.shape, parameter.dtype, 0, parameter)
    return entries


def _shard(zero: Sharded, buffers: Mapping[str, Tensor] | None, entries: Mapping) -> checkpoint.Shard:
    inner = zip(zero.optimizer.param_groups, zero.grouped(), strict=True)
    groups = checkpoint.groups_of([{**group, "params": params} for group, params in inner], {**zero.names})
    name = type(zero.optimizer).__name__
    return checkpoint.shard(zero.group, entries, optimizer=name, groups=groups, replicated=buffers)


@torch.no_grad()
def load_shard_state(zero: Sharded, shards: Any, buffers: Mapping[str, Tensor] | None) -> None:
    """Takes over what this rank owns: weights, moments, hyperparameters, and whatever every rank has whole.

    Args:
        zero: what is to go on from there. All its ranks have to call this.
        shards: of the ranks that saved, whatever they trained with and however many they were; or a single one, if that
            has all that this rank owns.
        buffers: of the model; None where it is not seen.

    Raises:
        ValueError: it says why the shards cannot be loaded. Nothing was changed on any rank.
    """
    shards = checkpoint.as_list(shards)
    problem = checkpoint.why_not(shards, lambda: _shard(zero, buffers, _entries(zero, whole=True)))
    agree(problem, zero.group, zero.vectors[0].data.device)
    for piece in zero.pieces:
        state = zero.optimizer.state[piece.shard]
        state.clear()  # the same dict goes on: others may have it
        state.update(checkpoint.load_parameter(shards, piece.name, piece.start, piece.shard))
        piece.view.copy_(piece.shard)
    for vector in zero.vectors:
        vector.all_gather().wait()
    sharded = {p for vector in zero.vectors for p in vector.parameters}
    for parameter, name in zero.names.items():
        if parameter not in sharded:
            checkpoint.load_parameter(shards, name, 0, parameter)
    checkpoint.load_groups(zero.optimizer.param_groups, shards)
    if buffers is not None:
        checkpoint.load_replicated(buffers, shards)


def torch_state(zero: Sharded) -> dict[str, Any]:
    """What `optimizer_class(params).state_dict()` would be in one process, on every rank. All ranks have to call it."""
    everyone: list = [None] * zero.group.size()
    dist.all_gather_object(everyone, shard_state(zero, None), group=zero.group)
    whole = checkpoint.consolidate(everyone)
    number = {name: k for k, name in enumerate(zero.names.values())}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in whole["groups"]]
    return {"state": {number[name]: each for name, each in whole["state"].items() if each}, "param_groups": groups}


@torch.no_grad()
def load_torch_state(zero: Sharded, state_dict: Mapping[str, Any]) -> None:
    """Takes over this rank's part of what `torch_state`, or the optimizer in one process, has saved; weights stay.

    Args:
        zero: what is to go on from there. All its ranks have to call this.
        state_dict: the same on every rank.

    Raises:
        ValueError: it says why that cannot be loaded. Nothing was changed on any rank.
    """
    agree(_not_torch(zero, state_dict), zero.group, zero.vectors[0].data.device)
    number = {name: k for k, name in enumerate(zero.names.values())}
    for piece in zero.pieces:
        state = zero.optimizer.state[piece.shard]
        state.clear()
        for key, value in state_dict["state"].get(number[piece.name], {}).items():
            if _per_element(key, value, piece.parameter):
                value = value.reshape(-1)[piece.start : piece.stop].to(piece.shard, copy=True)
            state[key] = value.clone() if isinstance(value, Tensor) else value
    for mine, theirs in zip(zero.optimizer.param_groups, state_dict["param_groups"], strict=True):
        mine.update(checkpoint.settings(theirs))


def _per_element(key: str, value: Any, parameter: Tensor) -> bool:
    # The count of steps has no dim, and so has the state of a parameter without dims.
    return isinstance(value, Tensor) and value.shape == parameter.shape and (value.dim() > 0 or key != "step")


def _not_torch(zero: Sharded, state_dict: Mapping[str, Any]) -> ValueError | None:
    """Why `state_dict` cannot be loaded; None if it can."""
    if "state" not in state_dict or "param_groups" not in state_dict:
        return ValueError("this is no state_dict() of an optimizer; a shard_state() goes into load_shard_state()")
    saved, mine = [len(g["params"]) for g in state_dict["param_groups"]], [len(g) for g in zero.grouped()]
    if saved != mine:
        return ValueError(f"the groups of the optimizer had {saved} parameters, and have {mine} here")
    for number, (parameter, name) in enumerate(zero.names.items()):
        for key, value in state_dict["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)} for {name}, which is {tuple(parameter.shape)} here"
                return ValueError(f"{key} is {shapes}")
    return None


class _Sharded(NotCopied):
    """What Zero1 and Zero2 save and load in shards."""

    def _buffers_saved(self) -> dict[str, Tensor] | None:
        """The buffers of the model; None where it is not seen."""
        return None

    def shard_state(self) -> checkpoint.Shard:
        """What this rank holds, weights and moments, in the form of `checkpoint.py`; every rank has to save its own."""
        return shard_state(cast(Sharded, self), self._buffers_saved())

    def load_shard_state(self, shards: checkpoint.Shard | Iterable[checkpoint.Shard]) -> None:
        """Takes over this rank's part of `shards`, see `zero_state.load_shard_state`. All ranks have to call it."""
        load_shard_state(cast(Sharded, self), shards, self._buffers_saved())

    instead = "what is sharded cannot be copied or pickled: save its shard_state(), and copy the model inside"


class ShardedOptimizer(_Sharded, torch.optim.Optimizer):
    """The base of Zero1: what an optimizer has to have, beside its `step`."""

    def grouped(self) -> list[list[nn.Parameter]]:
        """The parameters of each group, whole."""
        return [group["params"] for group in self.param_groups]

    def load_shard_state(self, shards: checkpoint.Shard | Iterable[checkpoint.Shard]) -> None:
        """Takes over this rank's part of `shards`, see `zero_state.load_shard_state`. All ranks have to call it."""
        super().load_shard_state(shards)
        copy_settings(cast(Sharded, self).optimizer.param_groups, self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """What the whole optimizer would give in one process. All ranks have to call it, and each gets all of it."""
        return torch_state(cast(Sharded, self))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over this rank's part of what `state_dict()`, or one process, has saved. All ranks have to call it."""
        load_torch_state(cast(Sharded, self), state_dict)
        copy_settings(cast(Sharded, self).optimizer.param_groups, self.param_groups)

    def add_param_group(self, param_group: dict) -> None:
        """Groups are given when the optimizer is made: the flat vectors are cut then. ValueError later."""
        if hasattr(self, "vectors"):
            raise ValueError("Zero1 cannot take another group: give all groups to Zero1(...)")
        super().add_param_group(param_group)


class ShardedModule(_Sharded, Wrapped):
    """The base of Zero2: what a wrapped model has to have, beside its passes and its `step`."""

    pieces: list[Piece]
    optimizer: torch.optim.Optimizer
    members: list[list[nn.Parameter]]

    def grouped(self) -> list[list[nn.Parameter]]:
        """The parameters of each group, whole."""
        return self.members

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer, of this rank's pieces: what a gradient scaler looks at."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients: this rank's parts, and what `no_sync` has left."""
        for piece in self.pieces:
            piece.view.grad = None
        super().zero_grad(set_to_none)

    def gradient_shards(self) -> list[Tensor]:
        """This rank's pieces of the mean gradient: what `clip_grad_norm_` scales."""
        return [piece.view.grad for piece in self.pieces if piece.view.grad is not None]

    def _buffers_saved(self) -> dict[str, Tensor]:
        return dict(self.module.named_buffers())
