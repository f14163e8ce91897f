"""A connection for each direction, where two ranks send to each other all the time.

In a ring of three ranks and more, a rank sends to one neighbor and receives from the other. In a group of two both are
the same rank, and gloo has one connection for each pair: it holds the pair's lock while it writes, and its event loop
polls for that lock whenever something has come in. A second group of the same two ranks is a second connection. With
rank 0 sending on the one and rank 1 on the other, writing never waits for reading; `benchmarks/all_reduce.py` has the
figures.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch.distributed as dist

LEAST_BYTES = 3 * 2**20  # below it two connections cost more (in caches) than waiting for one

_second: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()

Move = Callable[..., dist.Work]


@contextmanager
def lanes(group: dist.ProcessGroup, exchanged_bytes: int) -> Iterator[tuple[Move, Move]]:
    """What a rank sends and receives by, in an operation in which it moves `exchanged_bytes` in all.

    Both ranks of a pair have to pass the same number, and do where one sends what the other receives. The second lane
    is opened after the first large operation of a pair and not before, so that a rank that never joins its partner is
    seen to be missed in a plain `recv`.
    """
    large = exchanged_bytes >= LEAST_BYTES
    second = _second.get(group, group) if large else group
    there, back = (group, second) if group.rank() == 0 else (second, group)
    yield there.send, back.recv
    if large and second is group:
        # The same axis: which connection a message takes is no part of its identity.
        options = {"use_local_synchronization": True, "group_desc": getattr(group, "axis", None)}
        opened = dist.new_group(dist.get_process_group_ranks(group), **options)
        assert isinstance(opened, dist.ProcessGroup)
        _second[group] = opened
