"""Saving and loading of Zero1 and Zero2: this rank's shard in the form of `checkpoint.py`, or whole in torch's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree
from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.flat_vector import Piece
from parallel_lab.data_parallel.wrapped import NotCopied, Wrapped
from parallel_lab.trace import tag


def names(groups: Iterable[Mapping[str, Any]]) -> dict[nn.Parameter, str]:
    """Each parameter's name: the one that it was given to the optimizer with, or its number."""
    named: dict[nn.Parameter, str] = {}
    for group in groups:
        for place, parameter in enumerate(group["params"]):
            named[parameter] = group["param_names"][place] if "param_names" in group else str(len(named))
    return named


def _per_element(key: str, value: Any, parameter: Tensor) -> bool:
    # The count of steps has no dim, and so has the state of a parameter without dims.
    return isinstance(value, Tensor) and value.shape == parameter.shape and (value.dim() > 0 or key != "step")


class _Sharded(NotCopied):
    """What Zero1 and Zero2 hold, save and load in shards."""

    instead = "what is sharded cannot be copied or pickled: save its shard_state(), and copy the model inside"
    group: dist.ProcessGroup
    names: dict[nn.Parameter, str]
    vectors: Sequence[Any]
    pieces: list[Piece]
    optimizer: torch.optim.Optimizer
    members: list[list[nn.Parameter]]  # of each group of the optimizer, whole
    param_groups: Any

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

    def _replicated(self) -> dict[str, Tensor] | None:
        """The buffers of the model; None where it is not seen."""
        return None

    def shard_state(self) -> checkpoint.Shard:
        """What this rank holds, weights and moments, in the form of `checkpoint.py`; every rank has to save its own.

        On rank 0 also the parameters that are not sharded.
        """
        return self._held(whole=self.group.rank() == 0).save()

    def _held(self, whole: bool) -> checkpoint.Held:
        """What this rank holds; with `whole`, parameters that are not sharded are among it."""
        held = {p: (0, p) for p in self.names.keys() - self.sharded} if whole else {}
        held |= {piece.parameter: (piece.start, piece.shard) for piece in self.pieces}
        parts = [checkpoint.Part(name, p.shape, p.dtype, *held.get(p, (0, None))) for p, name in self.names.items()]
        inner = zip(self.optimizer.param_groups, self.members, strict=True)
        groups = checkpoint.groups_of([{**group, "params": params} for group, params in inner], {**self.names})
        return checkpoint.Held(self.group, self.device, parts, self.optimizer, groups, self._replicated())

    @torch.no_grad()
    def load_shard_state(self, shards: Sequence[checkpoint.Shard]) -> None:
        """Takes over this rank's part of `shards`, see `checkpoint.Held`. All ranks have to call it."""
        self._held(whole=True).load(shards)
        checkpoint.copy_settings(self.optimizer.param_groups, self.param_groups)
        for piece in self.pieces:
            piece.view.copy_(piece.shard)
        for vector in self.vectors:
            vector.all_gather().wait()


class ShardedOptimizer(_Sharded, torch.optim.Optimizer):
    """The base of Zero1: what an optimizer has to have, beside its `step`."""

    def state_dict(self) -> dict[str, Any]:
        """What the whole optimizer would give in one process. All ranks have to call it, and each gets all of it."""
        everyone: list = [None] * self.group.size()
        dist.all_gather_object(everyone, self.shard_state(), group=self.group)
        whole = checkpoint.consolidate(everyone)
        number = {name: k for k, name in enumerate(self.names.values())}
        groups = [group | {"params": [number[name] for name in group["params"]]} for group in whole["groups"]]
        return {"state": {number[name]: each for name, each in whole["state"].items() if each}, "param_groups": groups}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over this rank's part of what `state_dict()`, or one process, saved, no weights. All ranks call it.

        Raises:
            ValueError: it says why that cannot be loaded. Nothing was changed on any rank.
        """
        agree(self._why_not(state_dict), self.group, self.device)
        number = {name: k for k, name in enumerate(self.names.values())}
        for piece in self.pieces:
            state = self.optimizer.state[piece.shard]
            state.clear()
            for key, value in state_dict["state"].get(number[piece.name], {}).items():
                if _per_element(key, value, piece.parameter):
                    value = value.reshape(-1)[piece.start : piece.stop].to(piece.shard, copy=True)
                state[key] = value.clone() if isinstance(value, Tensor) else value
        for groups in (self.optimizer.param_groups, self.param_groups):
            checkpoint.copy_settings(state_dict["param_groups"], groups)

    def _why_not(self, state_dict: dict[str, Any]) -> ValueError | None:
        """Why `state_dict` cannot be loaded; None if it can."""
        if "state" not in state_dict or "param_groups" not in state_dict:
            return ValueError("this is no state_dict() of an optimizer; a shard_state() goes into load_shard_state()")
        saved, mine = [len(g["params"]) for g in state_dict["param_groups"]], [len(g) for g in self.members]
        if saved != mine:
            return ValueError(f"the groups of the optimizer had {saved} parameters, and have {mine} here")
        for number, (parameter, name) in enumerate(self.names.items()):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.dim() > 0 and value.shape != parameter.shape:
                    shapes = f"{tuple(value.shape)} for {name}, which is {tuple(parameter.shape)} here"
                    return ValueError(f"{key} is {shapes}")
        return None

    def add_param_group(self, param_group: dict) -> None:
        """Groups are given when the optimizer is made: the flat vectors are cut then.

        Raises:
            ValueError: it is made.
        """
        if hasattr(self, "vectors"):
            raise ValueError("Zero1 cannot take another group: give all groups to Zero1(...)")
        super().add_param_group(param_group)


class ShardedModule(_Sharded, Wrapped):
    """The base of Zero2: what a wrapped model has to have, beside its passes and its `step`."""

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

    def _replicated(self) -> dict[str, Tensor]:
        return dict(self.module.named_buffers())
