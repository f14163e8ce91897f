"""Experts placed by their load: on which rank each stands, and which ones stand on several.

A layer of experts waits for the rank with the most tokens. DeepSeek-AI 2024, "DeepSeek-V3", section 3.4: experts are
placed anew by the load that was observed, and those with the highest load get a copy on another rank, among which
their tokens are shared. `expert_parallel.placement` deals whole experts out, the heaviest first. No placement of whole
experts is below the load of the heaviest; `replicas` lowers that bound, for the memory of more experts.

The load is that of the *global* batch, summed over the ranks (`observed`); each rank's own is another number. It is the
load of the past: what a placement gains must also hold for the batches to come, and pay for the experts that move.

Copies are placed here and not trained: expert_parallel cuts whole experts. A trained copy needs its gradient summed
over the ranks that have one.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import whole
from parallel_lab.collectives.passes import named
from parallel_lab.expert_parallel import placement
from parallel_lab.expert_parallel.balance import mixtures
from parallel_lab.runtime.group import member
from parallel_lab.systems.balance.device import Device
from parallel_lab.systems.balance.sequences import in_order
from parallel_lab.trace import tag

Places = list[list[int]]  # the experts of each rank


def by_number(experts: int, ranks: int) -> Places:
    """What is usual: [r E/n, (r+1) E/n) on rank r, whatever their load."""
    return in_order(experts, ranks)


def replicas(load: Sequence[float], places: int) -> list[int]:
    """How many copies each expert gets, if there is room for `places` in all: the next to the most loaded copy.

    Raises:
        ValueError: there is no place for each expert.
    """
    if places < len(load):
        raise ValueError(f"{places} places for {len(load)} experts")
    copies = [1] * len(load)
    for _ in range(places - len(load)):
        copies[max(range(len(load)), key=lambda expert: load[expert] / copies[expert])] += 1
    return copies


def place_copies(load: Sequence[float], ranks: int, places: int) -> Places:
    """The experts of each rank, of `places` in all with copies; the tokens of an expert are shared by its copies.

    Two copies of an expert may come to one rank, where one with both shares would do.

    Raises:
        ValueError: `places` is no multiple of `ranks`, or smaller than the number of experts.
    """
    if places % whole("ranks", ranks):
        raise ValueError(f"{places} places do not divide among {ranks} ranks")
    copies = replicas(load, places)
    copied = [expert for expert, count in enumerate(copies) for _ in range(count)]
    placed = placement([load[expert] / copies[expert] for expert in copied], ranks)
    return [sorted(copied[place] for place in own) for own in placed]


def rank_loads(placed: Places, load: Sequence[float]) -> list[float]:
    """What each rank has to do; an expert's load is shared evenly by its copies."""
    copies = [sum(own.count(expert) for own in placed) for expert in range(len(load))]
    return [sum(load[expert] / copies[expert] for expert in own) for own in placed]


def arriving(old: Places, new: Places) -> int:
    """How many experts have to be sent, since a rank of `new` did not have them: times their bytes, the price."""
    return sum(len(set(own) - set(had)) for had, own in zip(old, new, strict=True))


@torch.no_grad()
def observed(model: nn.Module, *, group: dist.ProcessGroup | None = None) -> list[list[int]]:
    """The load of each expert of each mixture over the ranks, since it was last asked; it begins again at 0."""
    found, group = mixtures(model), member(group)
    loads = torch.stack([mixture.load for mixture in found])
    with named(group, "step"), tag(kind="load"):
        dist.all_reduce(loads, group=group)
    for mixture in found:
        mixture.load.zero_()
    return loads.tolist()


def on_device(model: nn.Module, device: Device, tokens: int) -> None:
    """Each `tokens` tokens that an expert of this rank gets are a unit of work for the emulated device, rounded up."""

    def work(module: nn.Module, arguments: tuple) -> None:
        device.work(-(-arguments[0].shape[0] // tokens))

    for mixture in mixtures(model):
        for expert in mixture.experts.children():
            expert.register_forward_pre_hook(work)
