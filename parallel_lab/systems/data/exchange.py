"""Rows of integers that go to the rank that owns them, and answers that come back: the shuffle of MapReduce.

A key's owner is `key mod world`. Equal keys of all ranks meet at one rank, which sees the whole group; a rank receives
about 1/n of all rows, where gathering all rows everywhere would give each rank all of them.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

KEY_BYTES = 8


def key_of(data: bytes | str) -> int:
    """A 63-bit hash that is the same in every process; Python's own `hash` of a string is salted anew in each."""
    raw = data.encode() if isinstance(data, str) else data
    return int.from_bytes(hashlib.blake2b(raw, digest_size=KEY_BYTES).digest(), "little") >> 1


def exchange(parts: Sequence[Tensor], *, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """Sends `parts[r]` to rank r; returns what came from each rank, in rank order.

    Args:
        parts: for each rank an int64 tensor (rows, width), as many rows as there are; the width is the same everywhere.
        group: of ranks.
    """
    sizes = torch.tensor([len(part) for part in parts])
    coming = torch.empty_like(sizes)
    dist.all_to_all_single(coming, sizes, group=group)
    received = torch.empty((int(coming.sum()), parts[0].shape[1]), dtype=torch.int64)
    dist.all_to_all_single(received, torch.cat(list(parts)), coming.tolist(), sizes.tolist(), group=group)
    return list(received.split(coming.tolist()))


def by_owner(rows: Tensor, owners: Tensor, world: int) -> list[Tensor]:
    """`rows` for each of `world` ranks, in their order."""
    return [rows[owners == rank] for rank in range(world)]


def gathered(rows: Tensor, *, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """The rows of every rank on every rank, in rank order: for what is small."""
    return exchange([rows] * dist.get_world_size(group), group=group)


def table(rows: Sequence, width: int) -> Tensor:
    """`rows` as int64 (rows, width), also where there are none."""
    return torch.from_numpy(np.asarray(rows, dtype=np.int64).reshape(-1, width))
