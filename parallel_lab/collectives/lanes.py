"""A connection for each direction, where two ranks send to each other all the time.

In a ring of three ranks and more, a rank sends to one neighbor and receives from the other. In a group of two both are
the same rank, and gloo has one connection for each pair: it holds the pair's lock while it writes, and its event loop
polls for that lock whenever something has come in. A second group of the same two ranks is a second connection. With
rank 0 sending on the one and rank 1 on the other, writing never waits for reading; `benchmarks/all_reduce.py` has the
figures.
"""

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch.distributed as dist

LEAST_BYTES = 3 * 2**20  # below it two connections cost more (in caches) than waiting for one

_second: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()


class Lanes(NamedTuple):
    """What a rank sends and receives by: methods of a process group, or of two."""

    send: Callable[..., dist.Work]
    recv: Callable[..., dist.Work]


def lanes(group: dist.ProcessGroup, exchanged_bytes: int) -> Lanes:
    """The lanes for an operation in which this rank sends and receives `exchanged_bytes` in all.

    Both ranks of a pair have to pass the same number, and do where one sends what the other receives.
    """
    second = _second.get(group) if exchanged_bytes >= LEAST_BYTES else None
    if second is None:
        return Lanes(group.send, group.recv)
    there, back = (group, second) if group.rank() == 0 else (second, group)
    return Lanes(there.send, back.recv)


def open_second(group: dist.ProcessGroup, exchanged_bytes: int) -> None:
    """After the first large operation of a pair: opens the second lane, for those to come.

    After and not before, so that a rank that never joins its partner is seen to be missed in a plain `recv`.
    """
    if exchanged_bytes >= LEAST_BYTES and group not in _second:
        ranks = dist.get_process_group_ranks(group)
        # The same axis: which connection a message takes is no part of its identity.
        axis = getattr(group, "axis", None)
        second = dist.new_group(ranks, use_local_synchronization=True, group_desc=axis)
        assert isinstance(second, dist.ProcessGroup)
        _second[group] = second
