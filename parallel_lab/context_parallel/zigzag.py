"""Which tokens a rank has: a row of neighbors, or, for causal attention, an early and a late chunk (zig-zag).

Ring attention's authors cut the sequence into n neighboring parts (Liu et al. 2023, arXiv 2310.01889). With a causal
mask the first rank's queries then see one part and the last one's all n. The last one has up to 2 - 1/n times the mean
to do, and since all wait for it, nearly all that the mask saves is lost. Cut into 2n chunks, of which rank r has the
r-th from the front and the r-th from the back, all ranks have the same to do: s (s+1) / 2n pairs of a query and a key,
exactly. Llama 3's training cuts so (Grattafiori et al. 2024, arXiv 2407.21783, section 3.3.2); striped attention deals
tokens out one by one (Brandon et al. 2023, arXiv 2311.09431).

It also makes every block simple. Chunks of another rank are wholly before or wholly after mine, so a block is a
rectangle that is seen whole: half of all pairs of rows and keys, with any other rank. Only the block on the diagonal is
causal, and my early chunk stands before my late one, so it is causal as it stands.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives import autograd
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member

SEQUENCE = 1  # the dim of (batch, seq, ...) that is sharded
Group = dist.ProcessGroup | None


class Block(NamedTuple):
    """What a rank's queries see of another rank's keys: these rows, these keys, and whether only those before."""

    rows: slice
    keys: slice
    causal: bool


def block(rank: int, owner: int, length: int, *, causal: bool, zigzag: bool) -> Block | None:
    """What the `length` queries of `rank` see of the `length` keys of `owner`; None for nothing."""
    whole, half = slice(0, length), length // 2
    if not causal or owner == rank:
        return Block(whole, whole, causal)
    if owner < rank:
        return Block(whole, slice(0, half) if zigzag else whole, False)  # its late chunk is after all of mine
    return Block(slice(half, length), whole, False) if zigzag else None  # my early chunk is before all of its


def chunks(rank: int, n: int, zigzag: bool) -> tuple[int, ...]:
    """Which chunks the rank has: of 2n with `zigzag`, of n without. One rank has all, in one piece."""
    return (rank, 2 * n - 1 - rank) if zigzag and n > 1 else (rank,)


def shard_sequence(x: Tensor, *, zigzag: bool = True, group: Group = None) -> Tensor:
    """This rank's tokens of x, (batch, seq, ...) to (batch, seq/n, ...); x is the same on all ranks.

    Shift the targets first and shard them then: the target of a rank's last token is another rank's first.

    Raises:
        ValueError: the sequence does not divide into the chunks.
    """
    group = member(group)
    rank, n = group.rank(), group.size()
    mine = chunks(rank, n, zigzag)
    count, seq = len(mine) * n, x.shape[SEQUENCE]
    if seq % count:
        more, each = -(-seq // count) * count, "two for each rank" if len(mine) > 1 else "one for each rank"
        raise ValueError(
            f"rank {rank}: a sequence of {seq} does not divide into {count} chunks, {each} ({zigzag=}): pad it to"
            f" {more}, with targets of -100, or choose other ranks"
        )
    parts = x.tensor_split(count, SEQUENCE)
    return torch.cat([parts[chunk] for chunk in mine], SEQUENCE)


def unshard_sequence(x: Tensor, *, zigzag: bool = True, group: Group = None) -> Tensor:
    """The whole from all ranks' parts, (batch, seq/n, ...) to (batch, seq, ...), in order, on every rank.

    In the backward pass each rank keeps its part of the gradient. That is right if all ranks compute the same from the
    whole. It sends n-1 parts.
    """
    group = member(group)
    order = [chunk for rank in range(group.size()) for chunk in chunks(rank, group.size(), zigzag)]
    parts = autograd.all_gather_split(x, SEQUENCE, group, built_in=True).tensor_split(len(order), SEQUENCE)
    return torch.cat([parts[order.index(chunk)] for chunk in range(len(order))], SEQUENCE)


def positions(seq: int, *, zigzag: bool = True, group: Group = None) -> Tensor:
    """Where this rank's tokens stand in a sequence of `seq`: (seq/n,), int64, on the rank's device.

    Raises:
        ValueError: as `shard_sequence`.
    """
    return shard_sequence(torch.arange(seq, device=rank_device())[None], zigzag=zigzag, group=group)[0]
