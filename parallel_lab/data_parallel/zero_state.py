"""What Zero1 and Zero2 share beside their passes: an optimizer of pieces, the gathers after it, saving and loading."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.flat_vector import Piece
from parallel_lab.data_parallel.wrapped import NotCopied
from parallel_lab.trace import tag

WHOLE = torch.optim.Adafactor, torch.optim.Muon, torch.optim.LBFGS  # look at whole tensors, or at all at once


class Sharded(NotCopied):
    """The base of Zero1 and Zero2."""

    instead = "what is sharded cannot be copied or pickled: save its shard_state(), and copy the model inside"
    group: dist.ProcessGroup
    names: dict[nn.Parameter, str]  # of all parameters, the frozen ones included
    vectors: Sequence[Any]  # the flat vectors, in the order in which they are sent
    param_groups: Any
    _guard: Any

    def whole_optimizer(self, optimizer_class: Callable, params: Sequence, settings: Mapping) -> torch.optim.Optimizer:
        """The optimizer of whole parameters, which checks arguments and fills in defaults."""
        self._guard.arguments(params, settings)
        self._make = partial(optimizer_class, **settings)
        optimizer = self._make(params)
        if isinstance(optimizer, WHOLE):
            text = f"{type(optimizer).__name__} looks at more than one element at a time"
            raise ValueError(f"{text}, so on pieces of parameters it goes wrong")
        return optimizer

    def start_equal(self, model: nn.Module, tensors: Iterable[Tensor], **settings: object) -> None:
        """Ranks have the same model and settings, and start from rank 0's values."""
        with tag(phase="setup"):
            self._guard.model(model, self.group, **settings)
            broadcast_tensors(tensors, self.group)

    def shard_optimizer(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Makes the optimizer that steps this rank's pieces, with the groups of the whole one."""
        self._members = [list(group["params"]) for group in groups]
        self.pieces: list[Piece] = [piece for vector in self.vectors for piece in vector.pieces]
        shards = {piece.parameter: piece.shard for piece in self.pieces}
        self.optimizer: torch.optim.Optimizer = self._make(checkpoint.groups_of(groups, shards))
        self._guard.after_step()

    @property
    def sharded(self) -> set[nn.Parameter]:
        """The trained parameters."""
        return {p for vector in self.vectors for p in vector.parameters}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.vectors[0].data.device

    def gather(self, mb: int) -> None:
        """Fills the flat vectors with the partitions of all ranks, one all-gather a vector."""
        works = []
        for part, vector in enumerate(self.vectors):
            with tag(part=part, mb=mb, phase="step"):
                works.append(vector.all_gather())
        for work in works:
            work.wait()

    def shard_state(self) -> checkpoint.Shard:
        """What this rank holds, weights and moments, in the form of `checkpoint.py`; every rank has to save its own.

        On rank 0 also the parameters that are not sharded.
        """
        return self._held(whole=self.group.rank() == 0).save()

    def _held(self, whole: bool) -> checkpoint.Held:
        """What this rank holds; with `whole`, parameters that are not sharded are among it."""
        held = {p: (0, p) for p in self.names.keys() - self.sharded} if whole else {}
        held |= {piece.parameter: (piece.start, piece.shard) for piece in self.pieces}
        parts = [checkpoint.Part(name, p.shape, *held.get(p, (0, None))) for p, name in self.names.items()]
        inner = zip(self.optimizer.param_groups, self._members, strict=True)
        groups = checkpoint.groups_of([{**group, "params": params} for group, params in inner], self.names)
        return checkpoint.Held(self.group, self.device, parts, self.optimizer, groups, getattr(self, "module", None))

    @torch.no_grad()
    def load_shard_state(self, shards: Sequence[checkpoint.Shard]) -> None:
        """Takes over this rank's part of `shards`, see `checkpoint.Held`. All ranks have to call it."""
        self._held(whole=True).load(shards)
        checkpoint.copy_settings(self.optimizer.param_groups, self.param_groups)
        for piece in self.pieces:
            piece.view.copy_(piece.shard)
        for vector in self.vectors:
            vector.all_gather().wait()


class ShardedOptimizer(Sharded, torch.optim.Optimizer):
    """What Zero1 has to have as an optimizer, beside its `step`."""

    def state_dict(self) -> dict[str, Any]:
        """What the whole optimizer would give in one process. All ranks have to call it, and each gets all of it."""
        everyone: list = [None] * self.group.size()
        dist.all_gather_object(everyone, self.shard_state(), group=self.group)
        whole = checkpoint.consolidate(everyone)
        number = {name: k for k, name in enumerate(self.names.values())}
        state = {number[name]: each for name, each in whole["state"].items() if each}
        return {"state": state, "param_groups": checkpoint.groups_of(whole["groups"], number)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over this rank's part of what `state_dict()`, or one process, saved, no weights. All ranks call it.

        Raises:
            ValueError: it says why that cannot be loaded. Nothing was changed on any rank.
        """
        self._held(whole=True).load(self._as_shard(state_dict))
        checkpoint.copy_settings(self.optimizer.param_groups, self.param_groups)

    def _as_shard(self, state_dict: dict[str, Any]) -> Iterable[checkpoint.Shard]:
        """The one shard of a checkpoint that has all of `state_dict`, and the weights that this rank holds already."""
        if "state" not in state_dict or "param_groups" not in state_dict:
            raise ValueError("this is no state_dict() of an optimizer; a shard_state() goes into load_shard_state()")
        saved, mine = [len(g["params"]) for g in state_dict["param_groups"]], [len(g) for g in self._members]
        if saved != mine:
            raise ValueError(f"the groups of the optimizer had {saved} parameters, and have {mine} here")
        shard, names = self._held(whole=True).save(), dict(enumerate(self.names.values()))
        for number, parameter in enumerate(self.names):
            part = checkpoint.Part(names[number], parameter.shape, 0, parameter)
            shard["parameters"][part.name]["state"] = part.entry(state_dict["state"].get(number, {}))["state"]
        yield shard | {"optimizer": None, "groups": checkpoint.groups_of(state_dict["param_groups"], names)}

    def add_param_group(self, param_group: dict) -> None:
        """Refuses groups once it is made: the flat vectors are cut then."""
        if hasattr(self, "vectors"):
            raise ValueError("Zero1 cannot take another group: give all groups to Zero1(...)")
        super().add_param_group(param_group)
