"""The whole model from all ranks' experts, and this rank's experts from the whole model."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import agree
from parallel_lab.expert_parallel.balance import mixtures
from parallel_lab.expert_parallel.dispatch import RemoteExperts
from parallel_lab.runtime.group import member


@torch.no_grad()
def full_state_dict(model: nn.Module, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    """The state dict of the whole model; every rank calls it, and gets it.

    `group` is the one that the experts were cut over. Each expert is broadcast by the rank that has it.
    """
    group, mine = member(group), model.state_dict()
    names = [name for name, module in model.named_modules() if module in mixtures(model)]
    whole = {name: value.clone() for name, value in mine.items() if not _of_expert(name, names)}
    for prefix, mixture in zip(names, mixtures(model), strict=True):
        assert isinstance(mixture.mix, RemoteExperts)
        like = next(iter(mixture.experts.values())).state_dict()  # pyright: ignore[reportCallIssue]
        for rank, numbers in enumerate(mixture.mix.placement):
            for number in numbers:
                for each, value in like.items():
                    name = f"{prefix}.experts.{number}.{each}"
                    whole[name] = mine[name].clone() if rank == group.rank() else torch.empty_like(value)
                    dist.broadcast(whole[name], group=group, group_src=rank)
    return whole


@torch.no_grad()
def load_full_state_dict(model: nn.Module, state: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Takes this rank's part of a whole model's state dict, which every rank has; all ranks call it.

    Raises:
        ValueError: it is of another model; the message names the first difference. Nothing was changed on any rank.
    """
    mine = model.state_dict()
    problem = None
    for name, held in mine.items():
        if name not in state:
            problem = problem or ValueError(f"the checkpoint lacks {name} {tuple(held.shape)}: it is of another model")
        elif state[name].shape != held.shape:
            there = tuple(state[name].shape)
            problem = problem or ValueError(
                f"{name} is {there} in the checkpoint and {tuple(held.shape)} in this model"
            )
    agree(problem, member(group), next(iter(mine.values())).device)
    for name, held in mine.items():
        held.copy_(state[name])


def _of_expert(name: str, prefixes: list[str]) -> bool:
    return any(name.startswith(f"{prefix}.experts.") for prefix in prefixes)
