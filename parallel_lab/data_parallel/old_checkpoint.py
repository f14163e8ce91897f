"""Checkpoints of sharded training: each rank saves what it owns, and any number of ranks can go on from there.

`state_dict()` of Zero1, Zero2 and Zero3 all give the same form, with plain tensors (copies, without padding) inside:

    technique, optimizer     what saved it, and the class of optimizer whose moments these are ("" for none)
    rank, ranks              whose shard this is, and of how many
    units                    the names in each flat vector, in order: with the shapes, all that a layout needs
    shapes                   of each parameter, by name
    pieces                   by name: start and stop of the elements that this rank owns, their values (master copies,
                             where there are such), and the optimizer's state of them
    groups                   the optimizer's hyperparameters, group by group
    replicated               what every rank has whole: buffers, and for Zero2 frozen parameters

Where a number of ranks is changed, `reshard` joins the pieces and cuts them anew for the same units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.data_parallel.flat import Layout, Piece

Shard = dict[str, Any]


def pieces_of(layout: Layout, rank: int, shard: Tensor, state: Mapping[str, Any]) -> dict[str, dict]:
    """The pieces in this rank's `shard` (share,), each with its part of the optimizer's `state` of that shard."""
    return {piece.name: cut(piece, shard, state) for piece in layout.pieces(rank)}


def cut(piece: Piece, shard: Tensor, state: Mapping[str, Any]) -> dict:
    """One piece of a `shard` in the form of `pieces`, with its part of the optimizer's `state` of that shard."""
    part = {key: _copy(value[piece.place] if per_element(value) else value) for key, value in state.items()}
    return {"start": piece.start, "stop": piece.stop, "values": _copy(shard[piece.place]), "state": part}


def per_element(value: Any) -> bool:
    """Whether an entry of an optimizer's state has a number for each element; a step count (no dim) has not."""
    return isinstance(value, Tensor) and value.dim() == 1


def _copy(value: Any) -> Any:
    # A copy, because a slice keeps its whole storage alive, and a pickle would hold all of it for each slice.
    return value.detach().clone() if isinstance(value, Tensor) else value


def join(layout: Layout, rank: int, pieces: Mapping[str, dict], shard: Tensor) -> dict[str, Any]:
    """Writes the values of `pieces` into `shard` (share,) and returns the optimizer's state of that shard."""
    state: dict[str, Any] = {}
    for piece in layout.pieces(rank):
        saved = pieces[piece.name]
        shard[piece.place].copy_(saved["values"])
        for key, value in saved["state"].items():
            if per_element(value):
                state.setdefault(key, value.new_zeros(layout.share))[piece.place].copy_(value)
            else:
                state[key] = _copy(value)
    return state


def settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of one group of an optimizer, without its parameters."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def hyperparameters(groups: Iterable[Mapping[str, Any]]) -> list[dict]:
    """`settings` of each group, copied."""
    return [{key: _copy(value) for key, value in settings(group).items()} for group in groups]


def restore_groups(groups: Iterable[dict], saved: Iterable[Mapping[str, Any]]) -> None:
    """Puts saved hyperparameters back into an optimizer's groups."""
    for group, settings in zip(groups, saved, strict=True):
        group.update({key: _copy(value) for key, value in settings.items()})


def shard(
    technique: str,
    group: dist.ProcessGroup,
    layouts: Sequence[Layout],
    pieces: dict[str, dict],
    optimizer: torch.optim.Optimizer | None,
    replicated: Mapping[str, Tensor],
) -> Shard:
    """What one rank saves: the dict at the head of this file."""
    return {
        "technique": technique,
        "optimizer": type(optimizer).__name__ if optimizer else "",
        "rank": group.rank(),
        "ranks": group.size(),
        "units": [[slot.name for slot in layout.slots] for layout in layouts],
        "shapes": {slot.name: slot.shape for layout in layouts for slot in layout.slots},
        "pieces": pieces,
        "groups": hyperparameters(optimizer.param_groups) if optimizer else [],
        "replicated": {name: _copy(tensor) for name, tensor in replicated.items()},
    }


def consolidate(shards: Sequence[Shard]) -> dict[str, Any]:
    """One checkpoint from the shards of all ranks, in any order.

    Returns a dict with `parameters` (by name, in their shapes), `state` (by name: what the optimizer holds, in the
    parameter's shape where it has a number for each element), `groups` and `replicated`.

    Raises:
        ValueError: a shard is missing, doubled, or of another checkpoint; the message says which.
    """
    shards = _in_order(shards)
    shapes, whole = shards[0]["shapes"], _joined(shards)
    states = {
        name: {key: value.view(shapes[name]) if per_element(value) else value for key, value in each["state"].items()}
        for name, each in whole.items()
    }
    return {
        "parameters": {name: each["values"].view(shapes[name]) for name, each in whole.items()},
        "state": states,
        "groups": shards[0]["groups"],
        "replicated": shards[0]["replicated"],
    }


def reshard(shards: Sequence[Shard], ranks: int) -> list[Shard]:
    """The same checkpoint as `ranks` ranks would have saved it: `reshard(shards, 2)[r]` is what rank r of 2 loads.

    Raises ValueError as `consolidate`, or if `ranks` is below 1.
    """
    if ranks < 1:
        raise ValueError(f"ranks={ranks}: expected at least 1")
    shards = _in_order(shards)
    whole, first = _joined(shards), shards[0]
    layouts = [Layout.of([(name, first["shapes"][name]) for name in unit], ranks) for unit in first["units"]]
    return [
        first | {"rank": rank, "ranks": ranks, "pieces": _all_pieces(layouts, rank, whole)} for rank in range(ranks)
    ]


def _all_pieces(layouts: Iterable[Layout], rank: int, whole: Mapping[str, dict]) -> dict[str, dict]:
    """What `rank` owns of the whole parameters, cut anew."""
    owned = [piece for layout in layouts for piece in layout.pieces(rank)]
    # A whole parameter is laid out as a share that begins with it, so its own start is the place to cut at.
    return {p.name: cut(p._replace(at=p.start), whole[p.name]["values"], whole[p.name]["state"]) for p in owned}


def _joined(shards: Sequence[Shard]) -> dict[str, dict]:
    """By name: `values` (elements,) and `state` of each whole parameter, flat."""
    whole = {}
    for name, shape in shards[0]["shapes"].items():
        parts = [shard["pieces"][name] for shard in shards if name in shard["pieces"]]
        _check_cover(name, shape, parts)
        if not parts:  # a parameter without elements
            whole[name] = {"values": torch.empty(0), "state": {}}
            continue
        state = {
            key: torch.cat([part["state"][key] for part in parts]) if per_element(value) else value
            for key, value in parts[0]["state"].items()
        }
        whole[name] = {"values": torch.cat([part["values"] for part in parts]), "state": state}
    return whole


def _in_order(shards: Sequence[Shard]) -> list[Shard]:
    """The shards by rank; ValueError unless they are those of all ranks of one checkpoint."""
    if not shards:
        raise ValueError("no shards: expected the state_dict() of every rank")
    ranks, given = shards[0]["ranks"], sorted(shard["rank"] for shard in shards)
    for shard in shards:
        for key in ("technique", "optimizer", "ranks", "shapes", "units"):
            if shard[key] != shards[0][key]:
                text = f"rank {shard['rank']}'s shard has another {key} than rank {shards[0]['rank']}'s"
                raise ValueError(f"{text}: they are not of one checkpoint")
    if given != list(range(ranks)):
        missing = sorted(set(range(ranks)) - set(given))
        raise ValueError(f"saved by {ranks} ranks, but the shards of ranks {given} were given: missing {missing}")
    return sorted(shards, key=lambda shard: shard["rank"])


def _check_cover(name: str, shape: Sequence[int], parts: Sequence[dict]) -> None:
    end = 0
    for part in parts:
        if part["start"] != end or len(part["values"]) != part["stop"] - part["start"]:
            raise ValueError(f"the pieces of {name} {tuple(shape)} leave a gap or overlap at element {end}")
        end = part["stop"]
    if end != prod(shape):
        raise ValueError(f"the pieces of {name} {tuple(shape)} end at element {end} of {prod(shape)}")


def copied(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A copy of one entry of an optimizer's state; what has a number for each element goes to `device`."""
    return {key: value.to(device, copy=True) if per_element(value) else _copy(value) for key, value in state.items()}


def why_not(saved: Shard, mine: Callable[[], Shard]) -> ValueError | None:
    """What `check_loadable` raises, as a value to agree on; None if `saved` can be loaded."""
    try:
        check_loadable(saved, mine())
    except ValueError as error:
        return error
    return None


def check_loadable(saved: Shard, mine: Shard) -> None:
    """Raises ValueError that says exactly why `saved` cannot be loaded where `state_dict()` would give `mine`."""
    if not isinstance(saved, Mapping) or "pieces" not in saved:
        raise ValueError("this is no state_dict() of Zero1, Zero2 or Zero3")
    if saved["technique"] != mine["technique"]:
        raise ValueError(f"saved by {saved['technique']}, cannot be loaded into {mine['technique']}")
    _check_parameters(saved["shapes"], mine["shapes"])
    if saved["ranks"] != mine["ranks"]:
        advice = f"pass reshard(shards, {mine['ranks']})[rank] of all its shards"
        raise ValueError(f"saved by {saved['ranks']} ranks, and this group has {mine['ranks']}: {advice}")
    if saved["rank"] != mine["rank"]:
        raise ValueError(f"this is the shard of rank {saved['rank']}, and this is rank {mine['rank']}")
    if saved["units"] != mine["units"]:
        raise ValueError("the parameters were grouped otherwise (bucket_bytes, units, groups): make them the same")
    _check_optimizer(saved, mine)


def _check_parameters(saved: Mapping, mine: Mapping) -> None:
    for name in mine:
        if name not in saved:
            raise ValueError(f"the checkpoint lacks the parameter {name} {tuple(mine[name])}")
        if tuple(saved[name]) != tuple(mine[name]):
            raise ValueError(f"{name} is {tuple(saved[name])} in the checkpoint and {tuple(mine[name])} in this model")
    if extra := [name for name in saved if name not in mine]:
        raise ValueError(f"the checkpoint has parameters that this model lacks: {', '.join(extra)}")


def _check_optimizer(saved: Shard, mine: Shard) -> None:
    if saved["optimizer"] != mine["optimizer"]:
        there, here = (each["optimizer"] or "no optimizer" for each in (saved, mine))
        raise ValueError(f"the checkpoint is of {there}, and here is {here}: load it with the same class of optimizer")
    if len(saved["groups"]) != len(mine["groups"]):
        raise ValueError(f"the optimizer had {len(saved['groups'])} groups, and has {len(mine['groups'])} here")
    if missing := [name for name in mine["replicated"] if name not in saved["replicated"]]:
        raise ValueError(f"the checkpoint lacks the buffer or frozen parameter {missing[0]}")
