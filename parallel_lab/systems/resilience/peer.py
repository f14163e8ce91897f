"""A checkpoint in the memory of another machine.

Wang et al. 2023, "Gemini: Fast Failure Recovery in Distributed Training with In-Memory Checkpoints" (SOSP).

Each rank copies its shard into its own host memory, and sends it to one rank of another machine, which keeps it there.
When a rank or a machine is lost, what replaces it gets the shard back over the network, and the others take their own
copy of the same step. The disk is for what memory cannot give: two losses at once that hit a shard and its copy.

    sent per rank and save       S, its shard, once
    held per rank, host          2 (S + S'), its own shard and the one that it holds, each twice: while a new one comes
                                 the last is still whole. All ranks change over together, after one flag
    sent per loss                S to the replacement, and S' of the shard that the lost one held for another

`placement.py` says who holds what. What Gemini does beside this is to send in pieces, in the gaps that training leaves
on the network; here training waits for the exchange.
"""

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.systems.resilience.placement import PAIRS, gone, holders
from parallel_lab.systems.resilience.together import gathered
from parallel_lab.trace import tag

Table = list[tuple[str, torch.dtype, tuple[int, ...]]]  # the tensors of a shard, in order


class PeerMemory:
    """This rank's part of the checkpoint in memory: its own shard, and that of the rank that sends to it.

    Args:
        machine: how many ranks a machine has; they are lost together.
        placement: `ring` or `pairs`.
        group: the ranks.

    Attributes:
        step: Of the checkpoint that is held; None before the first.
        sent_bytes: What this rank has sent of shards.

    Raises:
        ValueError: see `holders`.
    """

    @keyword_only()
    def __init__(self, *, machine: int = 1, placement: str = PAIRS, group: dist.ProcessGroup | None = None) -> None:
        self.group = member(group)
        self.held_by = holders(self.group.size(), machine=machine, placement=placement)
        self.rank = self.group.rank()
        self.step: int | None = None
        self.sent_bytes = 0
        self.tables: list[Table] = []  # of all ranks
        self.kept: dict[int, Tensor] = {}  # by rank, the bytes of its shard
        self.spare: dict[int, Tensor] = {}  # of the checkpoint before, to be written over

    @property
    def holds(self) -> int:
        """The rank whose shard this one holds beside its own."""
        return self.held_by.index(self.rank)

    @property
    def held_bytes(self) -> int:
        """The host memory in use."""
        return sum(each.nbytes for kept in (self.kept, self.spare) for each in kept.values())

    def save(self, shard: Mapping[str, Tensor], *, step: int) -> None:
        """Copies this rank's shard, and exchanges it with the peers. All ranks of the group call it."""
        self.tables = gathered([(name, each.dtype, tuple(each.shape)) for name, each in shard.items()], self.group)
        fresh = {rank: self._room(rank) for rank in (self.rank, self.holds)}
        _copy_in(shard, fresh[self.rank])
        with tag(phase="checkpoint"):
            self._exchange([(rank, rank, holder) for rank, holder in enumerate(self.held_by)], fresh)
            dist.barrier(self.group)  # all have all: from here on the new one counts
        self.kept, self.spare, self.step = fresh, self.kept, step

    def restore(self, lost: Collection[int] = ()) -> tuple[dict[str, Tensor], int]:
        """This rank's shard of the last checkpoint and its step. All ranks call it, those that replace lost ones too.

        The copies that were lost are made anew, so that the next loss finds them.

        Args:
            lost: the ranks whose memory is gone.

        Raises:
            ValueError: a shard is in no memory any more, or there was no checkpoint; on all ranks alike.
        """
        if none := gone(self.held_by, lost):
            names = ", ".join(f"{rank} (held by {self.held_by[rank]})" for rank in none)
            raise ValueError(f"the shards of ranks {names} were lost with their copies: load what is on the disk")
        known = [each for each in gathered((self.tables, self.step), self.group) if each[1] is not None]
        if not known:
            raise ValueError("there is no checkpoint in memory yet")
        self.tables, self.step = known[0]
        back = [(rank, self.held_by[rank], rank) for rank in sorted(lost)]
        again = [(rank, rank, holder) for rank, holder in enumerate(self.held_by) if holder in lost]
        self.kept |= {rank: self._room(rank) for rank in (self.rank, self.holds) if rank not in self.kept}
        with tag(phase="restore"):
            self._exchange(back, self.kept)
            self._exchange(again, self.kept)
        return _copy_out(self.kept[self.rank], self.tables[self.rank]), int(self.step or 0)

    def _exchange(self, messages: list[tuple[int, int, int]], kept: dict[int, Tensor]) -> None:
        """Moves shards: (whose, from, to) for all ranks, of which each does its own."""
        works, arriving = [], []
        for whose, source, target in messages:
            if source == self.rank:
                outgoing = kept[whose].to(rank_device())
                works.append((dist.isend(outgoing, group=self.group, group_dst=target), outgoing))
                self.sent_bytes += outgoing.nbytes
            if target == self.rank:
                incoming = kept[whose] if rank_device().type == "cpu" else kept[whose].to(rank_device())
                works.append((dist.irecv(incoming, group=self.group, group_src=source), incoming))
                arriving.append((kept[whose], incoming))
        for work, _ in works:
            assert work is not None
            work.wait()
        for place, incoming in arriving:
            place.copy_(incoming)  # on the CPU they are one

    def _room(self, rank: int) -> Tensor:
        """Host memory for the shard of a rank, that of the checkpoint before the last where it fits."""
        size = sum(prod(shape) * dtype.itemsize for _, dtype, shape in self.tables[rank])
        found = self.spare.get(rank)
        pin = rank_device().type == "cuda"
        return found if found is not None and found.numel() == size else _bytes(size, pin)


def _bytes(size: int, pin: bool) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=pin)


def _copy_in(shard: Mapping[str, Tensor], room: Tensor) -> None:
    start = 0
    for each in shard.values():
        flat = each.detach().contiguous().view(-1).view(torch.uint8)
        room[start : start + flat.numel()].copy_(flat)
        start += flat.numel()


def _copy_out(room: Tensor, table: Table) -> dict[str, Tensor]:
    found: dict[str, Any] = {}
    start = 0
    for name, dtype, shape in table:
        stop = start + prod(shape) * dtype.itemsize
        found[name] = room[start:stop].clone().view(dtype).view(shape)  # a clone begins where its dtype may
        start = stop
    return found
