"""The whole model from all ranks' parts, and this rank's parts from the whole model."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree
from parallel_lab.runtime.group import member
from parallel_lab.tensor_parallel.linear import Cut, Group


def cuts(model: nn.Module) -> dict[str, Cut]:
    """How each parameter that is cut is cut, by its name in `state_dict()`."""
    found = {}
    for prefix, module in model.named_modules():
        for name, cut in getattr(module, "cuts", {}).items():
            found[f"{prefix}.{name}" if prefix else name] = cut
    return found


@torch.no_grad()
def full_state_dict(model: nn.Module, group: Group = None) -> dict[str, Tensor]:
    """The state dict of the whole model, as it was before it was cut; every rank calls it, and gets it.

    `group` is the one that the model was cut over. It sends (n-1)/n of what is cut.
    """
    group, found, whole = member(group), cuts(model), {}
    gathered: dict[Tensor, Tensor] = {}  # tied parameters are gathered once
    for name, held in model.state_dict(keep_vars=True).items():
        if name in found and held not in gathered:
            parts = [torch.empty_like(held) for _ in range(group.size())]
            dist.all_gather(parts, held.detach().contiguous(), group=group)
            gathered[held] = found[name].whole(parts)
        whole[name] = gathered[held].clone() if name in found else held.detach().clone()
    return whole


@torch.no_grad()
def load_full_state_dict(model: nn.Module, state: Mapping[str, Tensor], group: Group = None) -> None:
    """Takes this rank's parts of a whole model's state dict, which every rank has; all ranks call it.

    Raises:
        ValueError: it is of another model; the message names the first difference. Nothing was changed on any rank.
    """
    group, found = member(group), cuts(model)
    mine = model.state_dict(keep_vars=True)
    device = next(iter(mine.values())).device
    agree(_difference(mine, state, found), group, device)
    for name, held in mine.items():
        whole = state[name].to(held.device)
        held.copy_(found[name].part(whole, group.rank()) if name in found else whole)


def _difference(mine: Mapping[str, Tensor], state: Mapping[str, Tensor], found: Mapping[str, Cut]) -> ValueError | None:
    """What tells the checkpoint's model from this one."""
    for name, held in mine.items():
        shape = list(held.shape)
        if name in found:
            shape[found[name].dim] = found[name].size
        if name not in state:
            return ValueError(f"the checkpoint lacks {name} {tuple(shape)}: it is of another model")
        if list(state[name].shape) != shape:
            there = tuple(state[name].shape)
            return ValueError(f"{name} is {there} in the checkpoint and {tuple(shape)} in this model, whole")
    if extra := [name for name in state if name not in mine]:
        return ValueError(f"the checkpoint has {', '.join(extra[:3])}, which this model lacks: it is of another model")
    return None
