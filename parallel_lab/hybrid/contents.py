"""What stands in the files of a checkpoint: what a rank writes, the index of all, and how a rank finds its pieces.

A rank's file has, by parameter, its elements under "" and what the optimizer holds of them by key: a vector, or one
value for the whole piece (a count of steps). The index has, by parameter, the shape of the whole, and for each piece
the rank whose file has it and its `Place`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parallel_lab.data_parallel.checkpoint import Part, copy_settings
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.parameters import Held, answered, held, optimizers_of
from parallel_lab.hybrid.pieces import Place, Shared, shared
from parallel_lab.model.config import GPTConfig
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.checksum import Stamp

MAY_CHANGE = "dropout", "seq"  # of a config: the same weights serve another
HOW = "foreach", "fused", "capturable", "differentiable"  # how an optimizer computes, on this machine


def shard(parallel: Parallel) -> dict[str, Any]:
    """What this rank answers for: `values` by parameter, and `buffers`."""
    first = parallel.place["dp_cp"] == parallel.place["tp"] == 0
    buffers = _buffers(parallel) if first else {}
    values = {each.name: _values(each) for each in answered(parallel) if each.numbers}
    return {"values": values, "buffers": {name: _cpu(buffer) for name, buffer in buffers.items()}}


def table(parallel: Parallel) -> dict[str, Any]:
    """What the index has to know of it."""
    settings = {p: g for group in _groups(parallel) for g in [_settings(group)] for p in group["params"]}
    mine = [each for each in answered(parallel) if each.numbers]
    optimizer = next((type(each.optimizer).__name__ for each in mine), "")
    rows = {e.name: (tuple(e.shape), e.parameter.dtype, tuple(_place(e)), settings[e.parameter]) for e in mine}
    first = parallel.place["dp_cp"] == parallel.place["tp"] == 0
    return {"parameters": rows, "buffers": [*_buffers(parallel)] if first else [], "optimizer": optimizer}


def whole_parameters(parallel: Parallel) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shapes of the parameters that this rank holds some of, whole, and their dtypes."""
    return {each.name: (tuple(each.shape), each.parameter.dtype) for each in held(parallel)}


def index(parallel: Parallel, tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where all things stand, from the tables of all ranks."""
    parameters: dict[str, dict[str, Any]] = {}
    settings: list[dict[str, Any]] = []
    for rank, each in enumerate(tables):
        for name, (shape, dtype, place, group) in each["parameters"].items():
            if group not in settings:
                settings.append(group)
            entry = {"shape": shape, "dtype": dtype, "settings": settings.index(group), "pieces": {}}
            parameters.setdefault(name, entry)["pieces"].setdefault(place, rank)
    return {
        "layout": dataclasses.asdict(parallel.layout),
        "model": dataclasses.asdict(parallel.config),
        "optimizer": next(each["optimizer"] for each in tables if each["optimizer"]),
        "settings": settings,
        "parameters": parameters,
        "buffers": {name: rank for rank, each in enumerate(tables) for name in each["buffers"]},
    }


def _values(each: Held) -> dict[str, Any]:
    """The elements of a piece, and what the optimizer holds of them, without what pads the last parts."""
    assert each.stepped is not None
    entry = Part(each.name, each.stepped.shape, 0, each.stepped).entry(each.state)
    rows = {"": entry["pieces"], **entry["state"]}
    return {key: _cpu(row[0][2][: each.numbers] if isinstance(row, list) else row) for key, row in rows.items()}


def _cpu(value: Any) -> Any:
    """A tensor in host memory. A slice is copied: a file would hold its whole storage."""
    if not isinstance(value, Tensor):
        return value
    there = value.detach().cpu()
    return there.clone() if there.untyped_storage().nbytes() > there.nbytes else there


def _place(each: Held) -> Place:
    return Place.of(each.shape, each.cut, each.tp, each.start, each.stop)


def _groups(parallel: Parallel) -> list[dict[str, Any]]:
    """The groups of this rank's optimizers, of whole parts."""
    return [group for optimizer in optimizers_of(parallel) for group in optimizer.param_groups]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a group, that is, what it computes."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names", *HOW)}


def _buffers(parallel: Parallel) -> dict[str, Tensor]:
    """The buffers of this rank's stages that a state dict has, by their names in the whole GPT."""
    held = [item for module in parallel.modules() for item in module.state_dict(keep_vars=True).items()]
    return {name: each for name, each in held if not isinstance(each, nn.Parameter)}


class Found(NamedTuple):
    """Where a piece that this rank holds stands in the files: what it shares with each saved piece, and its values."""

    held: Held
    rows: list[tuple[list[Shared], dict[str, Any]]]
    on_device: bool  # whether the optimizer wants its counts beside the moments


class Reader:
    """Looks for what this rank holds in a checkpoint, before anything is changed, and then copies it.

    Raises:
        ValueError: a file that this rank needs is missing or damaged, or the checkpoint is of another model or
            optimizer.
    """

    def __init__(self, parallel: Parallel, where: Path, here: Mapping[str, tuple]) -> None:
        self.parallel, self.where, self.index = parallel, where, folder.read_index(where)
        self._stamps = folder.stamps(self.index)
        self._files: dict[int, dict[str, Any]] = {}
        if difference := _difference(self.index, parallel.config, here):
            raise ValueError(f"{where} is of another model: {difference}")
        mine = held(parallel)
        self._check_optimizer(mine)
        self.found = [self._find(each) for each in mine if each.numbers]
        self.groups = list(self._settings({each.parameter: each.name for each in mine}))
        self.buffers = [(b, self.shard(self.index["buffers"][n])["buffers"][n]) for n, b in _buffers(parallel).items()]

    def shard(self, rank: int) -> dict[str, Any]:
        """The file of a rank; its tensors are mapped, and read when they are copied."""
        if rank not in self._files:
            name = folder.shard(rank)
            self._files[rank] = folder.read(self.where / name, Stamp(self._stamps[name].bytes))  # verified already
        return self._files[rank]

    def _check_optimizer(self, mine: Sequence[Held]) -> None:
        there = self.index["optimizer"]
        for here in {type(each.optimizer).__name__ for each in mine if each.numbers} - {there}:
            text = f"{self.where} is of {there}, and here is {here}"
            raise ValueError(f"{text}: load it with the same class of optimizer")

    def _find(self, each: Held) -> Found:
        saved, mine = self.index["parameters"][each.name], _place(each)
        rows, elements = [], 0
        for place, rank in saved["pieces"].items():
            if parts := shared(mine, Place(*place), each.shape.numel()):
                rows.append((parts, self.shard(rank)["values"][each.name]))
                elements += sum(part.elements for part in parts)
        if elements != mine.elements:
            text = f"{mine.elements - elements} of {mine.elements} elements of {each.name} are in none of its shards"
            raise ValueError(f"{self.where} is not complete: {text}. Now {folder.AWAY}")
        group = next((g for g in _groups(self.parallel) if any(p is each.parameter for p in g["params"])), {})
        return Found(each, rows, bool(group.get("fused") or group.get("capturable")))

    def _settings(self, names: Mapping[Tensor, str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each group of this rank's optimizers, and the hyperparameters that its parameters were saved with."""
        for group in _groups(self.parallel):
            members = [names[p] for p in group["params"] if p in names]
            numbers = {self.index["parameters"][name]["settings"]: name for name in members}
            if len(numbers) > 1:
                a, b, *_ = numbers.values()
                text = f"{a} and {b} are in one group of the optimizer here"
                raise ValueError(f"{text}, and were saved with different settings: make the groups that were there")
            for number in numbers:
                yield group, self.index["settings"][number]

    @torch.no_grad()
    def copy(self) -> None:
        """Copies weights, moments, hyperparameters and buffers into the model and its optimizer."""
        for found in self.found:
            _copy(found)
        for group, settings in self.groups:
            copy_settings([settings], [group])
        for buffer, values in self.buffers:
            buffer.copy_(values)


def _copy(found: Found) -> None:
    """Copies a piece into the tensor that is stepped, and what the optimizer held of it into its state."""
    stepped, before = found.held.stepped, found.held.state
    assert stepped is not None
    state: dict[str, Any] = {}
    for key, first in found.rows[0][1].items():
        if isinstance(first, Tensor) and first.dim():
            there = stepped if not key else before.get(key)
            if there is None or there.dtype != first.dtype:
                there = torch.zeros_like(stepped, dtype=first.dtype)
            for parts, values in found.rows:
                for part in parts:
                    part.copy(there.view(-1), values[key])
            state[key] = there
        elif isinstance(first, Tensor):
            state[key] = first.to(stepped.device, copy=True) if found.on_device else first.clone()
        else:
            state[key] = first
    del state[""]
    before.clear()  # the same dict goes on: others may have it
    before.update(state)


def _difference(index: dict[str, Any], config: GPTConfig, here: Mapping[str, tuple]) -> str:
    """The first difference of what was saved and the parameters of this whole model; "" where there is none."""
    fields = ((key, index["model"].get(key), value) for key, value in dataclasses.asdict(config).items())
    for key, there, value in fields:
        if there != value and key not in MAY_CHANGE:
            return f"{key} is {there} in its model and {value} in this one"
    saved = index["parameters"]
    for name, (shape, dtype) in here.items():
        if name not in saved:
            return f"it lacks the parameter {name} {shape}"
        if (saved[name]["shape"], saved[name]["dtype"]) != (shape, dtype):
            there = f"{saved[name]['shape']} {saved[name]['dtype']}"
            return f"{name} is {there} there and {shape} {dtype} here"
    extra = next((name for name in saved if name not in here), "")
    return f"it has the parameter {extra} {saved[extra]['shape']}, which this model lacks" if extra else ""
