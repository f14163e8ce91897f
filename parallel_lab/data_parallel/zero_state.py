"""Saving and loading of Zero1 and Zero2: this rank's shard in the form of `checkpoint.py`, or whole in torch's."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree
from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.flat_vector import FlatVector, Piece


class Saved(Protocol):
    """What can be saved: a Zero1 or a Zero2.

    Attributes:
        group: over which ranks it is sharded.
        names: of all parameters, the frozen ones included.
        vectors: the flat vectors.
        pieces: this rank's pieces of the trained parameters.
        optimizer: the one that steps the pieces.
    """

    group: dist.ProcessGroup
    names: dict[nn.Parameter, str]
    vectors: list[FlatVector]
    pieces: list[Piece]
    optimizer: torch.optim.Optimizer

    def grouped(self) -> list[list[nn.Parameter]]:
        """The parameters of each group of the optimizer, whole."""
        ...


def names(groups: Iterable[Mapping[str, Any]]) -> dict[nn.Parameter, str]:
    """Each parameter's name: the one that it was given to the optimizer with, or its number."""
    named: dict[nn.Parameter, str] = {}
    for group in groups:
        for place, parameter in enumerate(group["params"]):
            named[parameter] = group["param_names"][place] if "param_names" in group else str(len(named))
    return named


def shard_state(zero: Saved, buffers: Mapping[str, Tensor] | None) -> checkpoint.Shard:
    """What this rank holds: its pieces of weights and moments; on rank 0 also the parameters that are not sharded.

    Args:
        zero: whose state it is.
        buffers: of the model; None where it is not seen.
    """
    return _shard(zero, buffers, _entries(zero, whole=zero.group.rank() == 0))


def _entries(zero: Saved, whole: bool) -> dict[str, checkpoint.Entry]:
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


def _shard(zero: Saved, buffers: Mapping[str, Tensor] | None, entries: Mapping) -> checkpoint.Shard:
    inner = zip(zero.optimizer.param_groups, zero.grouped(), strict=True)
    groups = checkpoint.groups_of([{**group, "params": params} for group, params in inner], zero.names)
    name = type(zero.optimizer).__name__
    return checkpoint.shard(zero.group, entries, optimizer=name, groups=groups, replicated=buffers)


@torch.no_grad()
def load_shard_state(zero: Saved, shards: Any, buffers: Mapping[str, Tensor] | None) -> None:
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
    checkpoint.load_replicated(buffers or {}, shards)


def torch_state(zero: Saved) -> dict[str, Any]:
    """What `optimizer_class(params).state_dict()` would be in one process, on every rank. All ranks have to call it."""
    everyone: list = [None] * zero.group.size()
    dist.all_gather_object(everyone, shard_state(zero, None), group=zero.group)
    whole = checkpoint.consolidate(everyone)
    number = {name: k for k, name in enumerate(zero.names.values())}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in whole["groups"]]
    return {"state": {number[name]: each for name, each in whole["state"].items() if each}, "param_groups": groups}


@torch.no_grad()
def load_torch_state(zero: Saved, state_dict: Mapping[str, Any]) -> None:
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


def _not_torch(zero: Saved, state_dict: Mapping[str, Any]) -> ValueError | None:
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
