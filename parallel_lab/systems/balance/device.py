"""A device of its own speed for each rank, emulated: each unit of work ends with a call at which `Delay` sleeps.

On one machine all ranks share the processor's cores, so a rank that is slow has to be made. `Delay` strikes at an
operation; so each unit of work calls one, a reduce in a group of this rank alone, which moves no byte. The rank with
`unit_s` seconds sleeps as long in each unit, whoever's unit it is: a slow device, and not a large share of work. What a
model computes beside it takes real time, of which the sleep should be the larger part.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab.runtime import Delay, rank_device
from parallel_lab.runtime.group import member

UNIT = "reduce"  # the operation that ends a unit; nothing else in this room calls it


def delays(unit_s: Sequence[float]) -> list[Delay]:
    """The faults of a launch in which a unit of work takes rank r `unit_s[r]` seconds."""
    return [Delay(rank, UNIT, seconds=seconds) for rank, seconds in enumerate(unit_s) if seconds]


class Device:
    """This rank's device. All ranks of `group` make theirs together.

    Attributes:
        units: how many units it has done.
        busy_s: how long they took.
    """

    def __init__(self, *, group: dist.ProcessGroup | None = None) -> None:
        member(group)
        self.rank = dist.get_rank()
        self.alone: Any = dist.new_group([self.rank], use_local_synchronization=True)
        self.nothing = torch.zeros((), device=rank_device())
        self.units, self.busy_s = 0, 0.0

    def work(self, units: int = 1) -> float:
        """Does `units` of work, and returns the seconds that they took."""
        began_s = time.perf_counter()
        for _ in range(units):
            dist.reduce(self.nothing, self.rank, group=self.alone)
        took_s = time.perf_counter() - began_s
        self.units, self.busy_s = self.units + units, self.busy_s + took_s
        return took_s
