"""Checkpoints of sharded training: one form for all stages, so that any layout loads what any other has saved.

Each rank saves what it owns with `shard_state()`. What it owns is named by the parameter and by the first and the last
element, counted in the whole parameter, flattened. So nobody who loads has to know how it was cut when it was saved:

    rank, ranks    who saved this, and how many ranks saved
    parameters     by name: shape of the whole parameter,
                   pieces: a list of (start, stop, values), values being a vector of stop - start elements,
                   state: what the optimizer holds, by key: such a list too, or one value for the whole parameter
    optimizer      the class of the optimizer whose state this is; "" for none, None where it is not known
    groups         its hyperparameters, group by group
    replicated     what every rank has whole: the buffers; None where the technique does not see the model
    tied           the other names of parameters, and for each the name that it has above

`load_shard_state` of any stage, at any number of ranks, takes the shards of all ranks that saved, in any order.
Several ranks may hold the same elements (a frozen parameter that is not cut, a replica): any of them serves.
`to_torch` and `from_torch` translate to and from the state dicts of `torch.distributed.checkpoint`, which FSDP2 uses.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree

Shard: TypeAlias = dict[str, Any]


class Part(NamedTuple):
    """What this rank holds of one parameter."""

    name: str
    shape: Sequence[int]  # of the whole parameter
    start: int  # where `values` begin in the flattened parameter
    values: Tensor | None  # what the optimizer steps, in any shape; None where this rank holds nothing

    def entry(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What is saved of it, not copied yet; `state` is what the optimizer holds of `values`."""
        rows = {key: self._pieces(v) if self._per_element(key, v) else v for key, v in state.items()}
        return {"shape": tuple(self.shape), "pieces": self._pieces(self.values), "state": rows}

    def _pieces(self, values: Tensor | None) -> list[tuple[int, int, Tensor]]:
        return [] if values is None else [(self.start, self.start + values.numel(), values.detach().reshape(-1))]

    def _per_element(self, key: str, value: Any) -> bool:
        """Whether an entry of the optimizer's state has a number for each element; a count of steps has not."""
        shape = self.shape if self.values is None else self.values.shape
        if not isinstance(value, Tensor) or (value.dim() == 0 and (len(shape) > 0 or key == "step")):
            return False
        if value.shape != shape:
            text = f"the optimizer's state has the shape {tuple(value.shape)} for {self.name}, {tuple(shape)} here"
            raise ValueError(f"{text}: only optimizers that treat each element by itself can be saved in shards")
        return True


class Held(NamedTuple):
    """All that this rank holds: what Zero1, Zero2 and Zero3 save, and load into."""

    group: dist.ProcessGroup  # who saves and loads
    device: torch.device  # where its ranks agree
    parts: Sequence[Part]
    optimizer: torch.optim.Optimizer | None  # of the parts; None for the weights alone
    groups: Sequence[Mapping[str, Any]]  # what `groups_of` gives, with names
    module: nn.Module | None  # whose buffers are saved too; None where it is not seen

    def save(self) -> Shard:
        """What this rank saves: the dict at the head of this file."""
        state: Any = self.optimizer.state if self.optimizer else {}
        saved = {
            "parameters": {part.name: part.entry(state.get(part.values, {})) for part in self.parts},
            "groups": list(self.groups),
            **_beside(self.module),
        }
        optimizer = type(self.optimizer).__name__ if self.optimizer else ""
        return {"rank": self.group.rank(), "ranks": self.group.size(), "optimizer": optimizer, **copied(saved)}

    def load(self, shards: Iterable[Shard]) -> None:
        """Takes over weights, moments, hyperparameters and buffers. All ranks of the group call it.

        Raises:
            ValueError: it says why the shards cannot be loaded. Nothing was changed on any rank.
        """
        problem, found, groups = None, [], []
        try:
            saved = list(shards)
            found, groups = self.read(saved), saved[0]["groups"]
        except ValueError as error:
            problem = error
        agree(problem, self.group, self.device)
        for values, state in found:
            with torch.no_grad():
                values.copy_(state.pop(""))
            if self.optimizer and (state or values in self.optimizer.state):
                held = self.optimizer.state[values]  # the same dict goes on: others may have it
                held.clear()
                held.update({k: v.to(values.device) if torch.is_tensor(v) and v.dim() else v for k, v in state.items()})
        if self.optimizer:
            copy_settings(copied(groups), self.optimizer.param_groups)

    def read(self, shards: Sequence[Shard]) -> list[tuple[Tensor, dict[str, Any]]]:
        """For each tensor that this rank holds what `shards` have: its values under "", and the optimizer's state.

        Raises:
            ValueError: it says exactly what is missing or different.
        """
        _check_together(shards)
        saved = {name: each["shape"] for shard in shards for name, each in shard["parameters"].items()}
        mine = {part.name: tuple(part.shape) for part in self.parts}
        for name, shape in mine.items():
            if name not in saved:
                raise ValueError(f"the checkpoint lacks the parameter {name} {shape}")
            if saved[name] != shape:
                raise ValueError(f"{name} is {saved[name]} in the checkpoint and {shape} in this model")
        if extra := [name for name in saved if name not in mine]:
            raise ValueError(f"the checkpoint has parameters that this model lacks: {', '.join(extra)}")
        if self.optimizer:
            self._check_optimizer(shards[0])
        there, here = shards[0]["replicated"], _beside(self.module)["replicated"] or {}
        if missing := [name for name in here if there is not None and name not in there]:
            raise ValueError(f"the checkpoint lacks the buffer {missing[0]}")
        found = [(v, _read(shards, name, start, v.shape)) for name, _, start, v in self.parts if v is not None]
        return found + [(buffer, {"": there[name]}) for name, buffer in here.items() if there is not None]

    def _check_optimizer(self, saved: Shard) -> None:
        name, groups = type(self.optimizer).__name__, saved["groups"]
        if saved["optimizer"] not in (name, None):
            text = f"the checkpoint is of {saved['optimizer'] or 'no optimizer'}, and here is {name}"
            raise ValueError(f"{text}: load it with the same class of optimizer")
        if len(groups) != len(self.groups):
            raise ValueError(f"the optimizer had {len(groups)} groups, and has {len(self.groups)} here")
        place = {name: k for k, group in enumerate(groups) for name in group["params"]}
        for name, k in ((name, k) for k, group in enumerate(self.groups) for name in group["params"]):
            if place.get(name, k) != k:
                raise ValueError(f"{name} was in group {place[name]} of the optimizer, and is in group {k} here")


def groups_of(param_groups: Iterable[Mapping[str, Any]], members: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """The groups of an optimizer, with names or shards from `members` for their parameters; others are left out."""
    rows = [(group, [members[p] for p in group["params"] if p in members]) for group in param_groups]
    return [_settings(group) | {"params": row} for group, row in rows]


def copy_settings(source: Iterable[Mapping[str, Any]], target: Iterable[dict[str, Any]]) -> None:
    """Copies the hyperparameters of an optimizer's groups into those of another."""
    for theirs, mine in zip(source, target, strict=True):
        mine.update(_settings(theirs))


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def copied(value: Any) -> Any:
    """A copy of tensors, however deep. A slice keeps its whole storage alive, and a pickle would hold all of it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


def _beside(model: nn.Module | None) -> dict[str, Any]:
    """What is saved of a model beside its parameters, not copied yet."""
    if model is None:
        return {"replicated": None, "tied": {}}
    first: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    state = {name: each for name, each in model.state_dict(keep_vars=True).items() if isinstance(each, Tensor)}
    buffers = {name: each for name, each in state.items() if each not in first}
    tied = {name: first[each] for name, each in state.items() if first.get(each, name) != name}
    return {"replicated": buffers, "tied": tied}


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


def _read(shards: Sequence[Shard], name: str, start: int, shape: Sequence[int]) -> dict[str, Any]:
    """Copies of the elements from `start` on of a parameter, under "", and of their state, by key, in this shape."""
    entries = [each["parameters"][name] for each in shards if name in each["parameters"]]
    rows = [{"": each["pieces"], **each["state"]} for each in entries]
    found, stop = {}, start + prod(shape)
    for key in dict.fromkeys(chain.from_iterable(rows)):
        values = [row[key] for row in rows if key in row]
        if not isinstance(values[0], list):
            found[key] = copied(values[0])
            continue
        pieces = sorted(chain.from_iterable(values), key=lambda piece: piece[:2])
        parts, at = [elements[:0] for _, _, elements in pieces[:1]] or [torch.empty(0)], start
        for begin, end, elements in pieces:
            if begin <= at < min(end, stop):
                parts.append(elements[at - begin : stop - begin])
                at = min(end, stop)
        if at < stop:
            what, ranks = f"{key} of {name}" if key else name, sorted(shard["rank"] for shard in shards)
            text = f"element {at} of {what} {entries[0]['shape']} is in none of the shards of ranks {ranks}"
            raise ValueError(f"{text}, and {shards[0]['ranks']} ranks saved: give the shards of all of them")
        found[key] = torch.cat(parts).view(torch.Size(shape))
    return found


def consolidate(shards: Sequence[Shard]) -> dict[str, Any]:
    """One checkpoint from the shards of all ranks, in any order: `parameters` and `state` by name, in their shapes.

    `groups`, `optimizer`, `replicated` and `tied` are as in a shard.

    Raises:
        ValueError: an element is in none of the shards, or they are not of one checkpoint.
    """
    _check_together(shards)
    shapes = {name: each["shape"] for shard in shards for name, each in shard["parameters"].items()}
    state = {name: _read(shards, name, 0, shape) for name, shape in shapes.items()}
    parameters = {name: each.pop("") for name, each in state.items()}
    rest = {key: shards[0].get(key) for key in ("groups", "optimizer", "replicated", "tied")}
    return {"parameters": parameters, "state": state, **rest}


def to_torch(shards: Sequence[Shard]) -> dict[str, Any]:
    """The checkpoint as torch's `get_state_dict` gives it with full tensors: `{"model": …, "optim": …}`.

    `torch.distributed.checkpoint.save` writes it, and FSDP2, DDP or one process load it. It raises what `consolidate`
    does. Zero1, which sees no model, knows neither buffers nor the other names of tied parameters.
    """
    whole = consolidate(shards)
    state = {name: each for name, each in whole["state"].items() if each}
    model = whole["parameters"] | (whole["replicated"] or {})
    model |= {name: model[first] for name, first in (whole["tied"] or {}).items()}
    return {"model": model, "optim": {"state": state, "param_groups": whole["groups"]}}


def from_torch(state_dict: Mapping[str, Any], model: nn.Module) -> Shard:
    """The shard of a single rank that holds all of `state_dict`, which is as `to_torch` gives it.

    Any stage's `load_shard_state` takes it. Without `optim` only the weights are there. `model`, which may be sharded
    or on the meta device, tells parameters from buffers.
    """
    weights, optim = state_dict["model"], state_dict.get("optim", {"state": {}, "param_groups": []})
    parts = [Part(n, weights[n].shape, 0, weights[n]) for n, _ in model.named_parameters() if n in weights]
    entries = {part.name: part.entry(optim["state"].get(part.name, {})) for part in parts}
    beside = _beside(model)
    beside["replicated"] = {name: weights[name] for name in beside["replicated"] if name in weights}
    optimizer = None if optim["param_groups"] else ""  # its class is not known
    saved = {"parameters": entries, "groups": optim["param_groups"], **beside}
    return {"rank": 0, "ranks": 1, "optimizer": optimizer, **copied(saved)}
