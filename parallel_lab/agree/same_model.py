"""Before anything is averaged: do all ranks have the same model? And then the same weights, those of rank 0.

Ranks whose parameters differ in number, shape or order would add up unrelated gradients, or hang. Each rank describes
its model in words; a fingerprint of eight bytes is compared, and the descriptions travel only if it differs.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from statistics import mode
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.problem import wait_for_failed_rank
from parallel_lab.runtime.device import rank_device
from parallel_lab.trace import tag

BROADCAST_BYTES = 25 * 2**20  # so much is copied together, so that the model is not held twice
T = TypeVar("T", bound=Tensor)

Facts = dict[str, dict[str, str]]  # of each parameter, buffer and setting what must agree


def describe(model: nn.Module, **settings: object) -> Facts:
    """Everything that ranks must agree on, in order of registration."""
    first: dict[int, str] = {}
    facts: Facts = {f"setting {name!r}": {"value": repr(value)} for name, value in settings.items()}
    for name, p in model.named_parameters(remove_duplicate=False):
        tied = first.setdefault(id(p), name)
        own = {"shape": str(tuple(p.shape)), "dtype": str(p.dtype), "requires_grad": str(p.requires_grad)}
        facts[f"parameter {name!r}"] = own | {"the name of the tensor it shares": tied}
    for name, b in model.named_buffers():
        facts[f"buffer {name!r}"] = {"shape": str(tuple(b.shape)), "dtype": str(b.dtype)}
    return facts


def check_same_model(model: nn.Module, group: dist.ProcessGroup, **settings: object) -> None:
    """Returns if all ranks of `group` have the same model and settings.

    Otherwise the ranks that differ from most of the others (from rank 0, where that is undecided) raise ValueError with
    the first difference, and the rest waits for them in a barrier.
    """
    mine, rank = describe(model, **settings), group.rank()
    device = next((p.device for p in model.parameters() if not p.is_meta), rank_device())
    digest = hashlib.sha256(repr(mine).encode()).digest()[:7]
    prints = torch.zeros(group.size(), dtype=torch.int64, device=device)
    prints[rank] = int.from_bytes(digest, "big")
    dist.all_reduce(prints, group=group)  # each rank fills its own place
    found = prints.tolist()
    if len(set(found)) == 1:
        return
    everyone: list = [None] * group.size()
    dist.all_gather_object(everyone, mine, group=group)
    usual = found.index(mode(found))
    if found[rank] != found[usual]:
        raise ValueError(
            f"rank {rank} does not have the model of rank {usual}: {next(_differences(mine, everyone[usual]))}."
            " Build the same model, in the same order, with the same settings on every rank."
        )
    wait_for_failed_rank(group, "another rank has another model")


def _differences(mine: Facts, theirs: Facts) -> Iterator[str]:
    yield from (f"it lacks the {each}" for each in theirs if each not in mine)
    yield from (f"its {each} is not there" for each in mine if each not in theirs)
    for each, facts in mine.items():
        for fact, value in facts.items():
            if value != theirs[each][fact]:
                yield f"{fact} of the {each} is {value} here and {theirs[each][fact]} there"
    for each, other in zip(mine, theirs, strict=True):
        if each != other:
            yield f"the order differs, the {each} stands where it has the {other}"


def broadcast_tensors(tensors: Iterable[Tensor], group: dist.ProcessGroup, source: int = 0, **names: int | str) -> None:
    """Overwrites the tensors by those of rank `source`, those of a dtype packed together.

    `names` are those of a step, as `trace.tag` takes them; the i-th message is then part i. Autograd does not notice: a
    graph that was recorded before keeps working, as buffers must that two forward passes share.
    """
    named = [("", tensor.data) for tensor in tensors]  # unlike detach(), `data` has a version counter of its own
    for part, members in enumerate(partition(named, BROADCAST_BYTES)):
        pack = [tensor for _, tensor in members]
        flat = torch.cat([tensor.reshape(-1) for tensor in pack])
        with tag(**({"part": part, **names} if names else {})):
            dist.broadcast(flat, group=group, group_src=source)
        if group.rank() != source:
            for tensor, values in zip(pack, flat.split([t.numel() for t in pack]), strict=True):
                tensor.copy_(values.view(tensor.shape))


def partition(named: Sequence[tuple[str, T]], bucket_bytes: float) -> list[list[tuple[str, T]]]:
    """Cuts named tensors into buckets, keeping the order; a bucket is closed once it holds `bucket_bytes` or more.

    Dtypes and devices do not mix. Buckets stand in the order of their last members, in which they fill up.
    """
    open_: dict[tuple, list[int]] = {}
    closed: list[list[int]] = []
    for i, (_, tensor) in enumerate(named):
        members = open_.setdefault((tensor.dtype, tensor.device), [])
        members.append(i)
        if sum(named[j][1].nbytes for j in members) >= bucket_bytes:
            closed.append(open_.pop((tensor.dtype, tensor.device)))
    return [[named[i] for i in members] for members in sorted([*closed, *open_.values()], key=max)]
