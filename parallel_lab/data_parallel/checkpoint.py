"""Checkpoints of sharded training: one form for all stages, so that any layout loads what any other has saved.

Each rank saves what it owns with `shard_state()`. What it owns is named by the parameter and by the first and the last
element, counted in the whole parameter, flattened. So nobody who loads has to know how it was cut when it was saved:

    rank, ranks    who saved this, and how many ranks saved
    parameters     by name: shape and dtype of the whole parameter,
                   pieces: a list of (start, stop, values), values being a vector of stop - start elements,
                   state: what the optimizer holds, by key: such a list too, or one value for the whole parameter
    optimizer      the class of the optimizer whose state this is; "" for none
    groups         its hyperparameters, group by group
    replicated     what every rank has whole: the buffers; None where the technique does not see the model

`load_shard_state` of any stage, at any number of ranks, takes the shards of all ranks that saved, in any order.
Several ranks may hold the same elements (a frozen parameter that is not cut, a replica): any of them serves.
`to_torch` and `from_torch` translate to and from the state dicts of `torch.distributed.checkpoint`, which FSDP2 uses.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree

Piece: TypeAlias = tuple[int, int, Tensor]
Entry: TypeAlias = dict[str, Any]
Shard: TypeAlias = dict[str, Any]


# What one rank saves.


def entry(
    shape: Sequence[int], dtype: torch.dtype, start: int = 0, values: Tensor | None = None, state: Mapping = {}
) -> Entry:
    """What this rank holds of one parameter, as in `Part`, for `parameters`. Tensors are not copied yet.

    `state` is what the optimizer holds of `values`: `optimizer.state[...]`.
    """
    if values is None:
        return {"shape": tuple(shape), "dtype": dtype, "pieces": [], "state": {}}

    def piece(value: Tensor) -> list[Piece]:
        return [(start, start + value.numel(), value.detach().reshape(-1))]

    held = {key: piece(value) if _per_element(value, values) else value for key, value in state.items()}
    return {"shape": tuple(shape), "dtype": dtype, "pieces": piece(values), "state": held}


def _per_element(value: Any, values: Tensor) -> bool:
    """Whether an entry of an optimizer's state has a number for each element; a step count (no dim) has not."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return False
    if value.shape != values.shape:
        text = f"the optimizer's state has the shape {tuple(value.shape)} for a shard of {tuple(values.shape)}"
        raise ValueError(f"{text}: only optimizers that treat each element by itself can be saved in shards")
    return True


def shard(
    group: dist.ProcessGroup,
    entries: Mapping[str, Entry],
    *,
    optimizer: str = "",
    groups: Sequence[Mapping[str, Any]] = (),
    replicated: Mapping[str, Tensor] | None = None,
) -> Shard:
    """What one rank saves: the dict at the head of this file, with copies of all tensors."""
    saved = {"parameters": entries, "optimizer": optimizer, "groups": list(groups), "replicated": replicated}
    return {"rank": group.rank(), "ranks": group.size(), **copied(saved)}


def groups_of(param_groups: Iterable[Mapping[str, Any]], names: Mapping[Tensor, str]) -> list[dict[str, Any]]:
    """The groups of an optimizer, with `names` of their parameters under `params`; those without one are left out."""
    return [settings(group) | {"params": [names[p] for p in group["params"] if p in names]} for group in param_groups]


def settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of one group of an optimizer, without its parameters."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def copy_settings(source: Iterable[Mapping[str, Any]], target: Iterable[dict[str, Any]]) -> None:
    """Copies the hyperparameters of an optimizer's groups into those of another."""
    for theirs, mine in zip(source, target, strict=True):
        mine.update(settings(theirs))


def copied(value: Any) -> Any:
    """A copy of tensors, however deep. A slice keeps its whole storage alive, and a pickle would hold all of it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


# What one rank loads.


def load_parameter(shards: Sequence[Shard], name: str, start: int, values: Tensor) -> dict[str, Any]:
    """Fills `values`, this rank's part of parameter `name`, which begins at element `start`.

    Returns:
        The optimizer's state of that part, in the shape of `values`, for `optimizer.state[...]`; empty if none was
        saved.

    Raises:
        ValueError: some of the elements are in none of the shards.
    """
    found = _read(shards, name, start, start + values.numel())
    with torch.no_grad():
        values.copy_(found.pop("").view(values.shape))
    return {
        key: each.to(values.device).view(values.shape) if isinstance(each, Tensor) and each.dim() else copied(each)
        for key, each in found.items()
    }


def _read(shards: Sequence[Shard], name: str, start: int, stop: int) -> dict[str, Any]:
    """The elements [start, stop) of a parameter, under "", and the state of these, by key. Raises if one is missing."""
    entries = [each["parameters"][name] for each in shards if name in each["parameters"]]
    found: dict[str, Any] = {}
    for key, value in (pair for each in entries for pair in [("", each["pieces"]), *each["state"].items()]):
        found[key] = [*found.get(key, []), *value] if isinstance(value, list) else value
    for key, pieces in found.items():
        if isinstance(pieces, list):
            found[key], at = _join(pieces, start, stop)
            if at < stop:
                what, ranks = f"{key} of {name}" if key else name, sorted(shard["rank"] for shard in shards)
                text = f"element {at} of {what} {entries[0]['shape']} is in none of the shards of ranks {ranks}"
                raise ValueError(f"{text}, and {shards[0]['ranks']} ranks saved: give the shards of all of them")
    return found


def _join(pieces: Sequence[Piece], start: int, stop: int) -> tuple[Tensor, int]:
    """A copy of the elements [start, stop), from whichever pieces hold them; and the first that none of them holds."""
    parts, at = [torch.empty(0)], start
    for begin, end, values in sorted(pieces, key=lambda piece: piece[:2]):
        if begin <= at < min(end, stop):
            parts.append(values[at - begin : stop - begin])
            at = min(end, stop)
    return torch.cat(parts[1:] or parts), at


# Why it cannot.


def check_loadable(shards: Sequence[Shard], mine: Shard) -> None:
    """Returns if all that this rank holds, `mine`, is in `shards`. Those that hold nothing of it may be left out.

    Raises:
        ValueError: it says exactly what is missing or different.
    """
    _check_together(shards)
    saved = {name: each for shard in shards for name, each in shard["parameters"].items()}
    for name, here in mine["parameters"].items():
        if name not in saved:
            raise ValueError(f"the checkpoint lacks the parameter {name} {here['shape']}")
        if saved[name]["shape"] != here["shape"]:
            there = saved[name]["shape"]
            raise ValueError(f"{name} is {there} in the checkpoint and {here['shape']} in this model")
        for start, stop, _ in here["pieces"]:
            _read(shards, name, start, stop)
    if extra := [name for name in saved if name not in mine["parameters"]]:
        raise ValueError(f"the checkpoint has parameters that this model lacks: {', '.join(extra)}")
    if mine["optimizer"]:
        _check_optimizer(shards[0], mine)
    buffers = shards[0]["replicated"]
    if buffers is not None and (missing := [name for name in mine["replicated"] or () if name not in buffers]):
        raise ValueError(f"the checkpoint lacks the buffer {missing[0]}")


def _check_together(shards: Sequence[Shard]) -> None:
    """Raises ValueError unless the shards are of one checkpoint."""
    if not shards:
        raise ValueError("no shards: expected the shard_state() of every rank that saved")
    for shard in shards:
        if not isinstance(shard, Mapping) or "parameters" not in shard:
            raise ValueError("this is no shard_state() of Zero1, Zero2 or Zero3")
        for key in ("optimizer", "ranks"):
            if shard[key] != shards[0][key]:
                text = f"rank {shard['rank']}'s shard has another {key} than rank {shards[0]['rank']}'s"
                raise ValueError(f"{text}: they are not of one checkpoint")


def _check_optimizer(saved: Shard, mine: Shard) -> None:
    if saved["optimizer"] not in (mine["optimizer"], None):
        there = saved["optimizer"] or "no optimizer"
        text = f"the checkpoint is of {there}, and here is {mine['optimizer']}"
        raise ValueError(f"{text}: load it with the same class of optimizer")
    if len(saved["groups"]) != len(mine["groups"]):
        raise ValueError(f"the optimizer had {len(saved['groups'])} groups, and has {len(mine['groups'])} here")
    place = {name: k for k, group in enumerate(saved["groups"]) for name in group["params"]}
    for k, group in enumerate(mine["groups"]):
        for name in group["params"]:
            if place.get(name, k) != k:
                raise ValueError(f"{name} was in group {place[name]} of the optimizer, and is in group {k} here")


# What Zero1, Zero2 and Zero3 do with it.


class Part(NamedTuple):
    """What this rank holds of one parameter."""

    name: str
    shape: Sequence[int]  # of the whole parameter
    dtype: torch.dtype  # of the parameter that is computed with; `values` may be master copies of another
    start: int  # where `values` begin in the flattened parameter
    values: Tensor | None  # what the optimizer steps, in any shape; None where this rank holds nothing


class Held(NamedTuple):
    """All that this rank holds."""

    group: dist.ProcessGroup  # who saves and loads
    device: torch.device  # where its ranks agree
    parts: Sequence[Part]
    optimizer: torch.optim.Optimizer | None  # of the parts; None for the weights alone
    groups: Sequence[Mapping[str, Any]]  # what `groups_of` gives
    replicated: Mapping[str, Tensor] | None  # the buffers; None where they are not seen

    def save(self) -> Shard:
        """What this rank saves."""
        state: Any = self.optimizer.state if self.optimizer else {}
        entries = {part.name: entry(*part[1:], state.get(part.values, {})) for part in self.parts}
        name = type(self.optimizer).__name__ if self.optimizer else ""
        return shard(self.group, entries, optimizer=name, groups=self.groups, replicated=self.replicated)

    def load(self, shards: Sequence[Shard]) -> None:
        """Takes over weights, moments, hyperparameters and buffers. All ranks of the group call it.

        Raises:
            ValueError: it says why the shards cannot be loaded. Nothing was changed on any rank.
        """
        problem = None
        try:
            check_loadable(shards, self.save())
        except ValueError as error:
            problem = error
        agree(problem, self.group, self.device)
        for part in self.parts:
            if part.values is not None:
                state = load_parameter(shards, part.name, part.start, part.values)
                if self.optimizer and (state or part.values in self.optimizer.state):
                    held = self.optimizer.state[part.values]  # the same dict goes on: others may have it
                    held.clear()
                    held.update(state)
        if self.optimizer:
            copy_settings(copied(shards[0]["groups"]), self.optimizer.param_groups)
        if self.replicated is not None:
            for name, value in (shards[0]["replicated"] or {}).items():
                self.replicated[name].detach().copy_(value)


# The whole of it, in one place.


def consolidate(shards: Sequence[Shard]) -> dict[str, Any]:
    """One checkpoint from the shards of all ranks, in any order.

    It has `parameters` (by name, in their shapes), `state` (by name: what the optimizer holds, in the parameter's shape
    where it has a number for each element), `groups`, `optimizer` and `replicated`.

    Raises:
        ValueError: an element is in none of the shards, or they are not of one checkpoint.
    """
    _check_together(shards)
    parameters, states = {}, {}
    for name, each in {name: each for shard in shards for name, each in shard["parameters"].items()}.items():
        pieces = [piece for shard in shards for piece in shard["parameters"].get(name, {"pieces": []})["pieces"]]
        dtype = pieces[0][2].dtype if pieces else each["dtype"]  # of master copies, where there are such
        parameters[name] = torch.empty(each["shape"], dtype=dtype)
        states[name] = load_parameter(shards, name, 0, parameters[name])
    rest = {key: shards[0][key] for key in ("groups", "optimizer", "replicated")}
    return {"parameters": parameters, "state": states, **rest}


def to_torch(shards: Sequence[Shard]) -> dict[str, Any]:
    """The checkpoint as torch's `get_state_dict` gives it with full tensors: `{"model": …, "optim": …}`.

    `torch.distributed.checkpoint.save` writes it, and FSDP2, DDP or one process load it. It raises what `consolidate`
    does.
    """
    whole = consolidate(shards)
    state = {name: each for name, each in whole["state"].items() if each}
    model = whole["parameters"] | (whole["replicated"] or {})
    return {"model": model, "optim": {"state": state, "param_groups": whole["groups"]}}


def from_torch(state_dict: Mapping[str, Any], model: nn.Module) -> Shard:
    """The shard of a single rank that holds all of `state_dict`, which is as `to_torch` gives it.

    Any stage's `load_shard_state` takes it. Without `optim` only the weights are there. `model`, which may be sharded
    or on the meta device, tells parameters from buffers.
    """
    weights, optim = state_dict["model"], state_dict.get("optim", {"state": {}, "param_groups": []})
    names = [name for name, _ in model.named_parameters() if name in weights]
    entries = {
        name: entry(weights[name].shape, weights[name].dtype, 0, weights[name], optim["state"].get(name, {}))
        for name in names
    }
    buffers = {name: weights[name] for name, _ in model.named_buffers() if name in weights}
    optimizer = None if optim["param_groups"] else ""  # its class is not known
    saved = {"parameters": entries, "groups": optim["param_groups"], "replicated": buffers}
    return {"rank": 0, "ranks": 1, "optimizer": optimizer, **copied(saved)}
