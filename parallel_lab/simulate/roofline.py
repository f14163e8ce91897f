"""The roofline model: computation takes as long as the slower of its arithmetic and its memory traffic.

Williams, Waterman & Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures", 2009.
"""

from dataclasses import dataclass
from typing import Literal

from parallel_lab.network.cost import COMMUNICATION, CostModel, PerOp, value
from parallel_lab.plan import Op


@dataclass(frozen=True)
class Roofline(CostModel):
    """time = max(flops / flops_per_s, moved bytes / bytes_per_s).

    Use it by itself for a plan of computation, or give `Roofline(...).seconds` to a network as `compute_s`.

    Attributes:
        flops_per_s: Peak arithmetic.
        bytes_per_s: Bandwidth of the memory.
        flops, moved_bytes: What an op does, and what it reads and writes.
    """

    flops_per_s: float
    bytes_per_s: float
    flops: PerOp = 0.0
    moved_bytes: PerOp = 0.0

    @property
    def ridge(self) -> float:
        """Flops a byte above which arithmetic is the limit, below which memory is."""
        return self.flops_per_s / self.bytes_per_s

    def time_s(self, flops: float, moved_bytes: float) -> float:
        """Seconds for so much arithmetic over so many bytes."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)

    def bound(self, flops: float, moved_bytes: float) -> Literal["compute", "memory"]:
        """What limits it."""
        return "compute" if flops >= self.ridge * moved_bytes else "memory"

    def seconds(self, op: Op) -> float:
        """Seconds of an op that computes."""
        if op.kind in COMMUNICATION:
            raise ValueError(f"a Roofline prices computation, not the message {op}")
        return self.time_s(value(self.flops, op), value(self.moved_bytes, op))
