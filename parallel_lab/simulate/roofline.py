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
        """FLOPs per byte above which arithmetic is the limit, below which memory is."""
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


@dataclass(frozen=True)
class Decoding:
    """A model that writes one token for each sequence of a batch: a step reads all weights once, and every cache.

    The sequences share one reading of the weights; the cache of keys and values is read by its own sequence alone. So a
    larger batch spreads the weights over more tokens until arithmetic, the caches, or the memory of the card end it
    (Pope et al. 2023, "Efficiently scaling Transformer inference"). Attention's FLOPs are left out.

    Attributes:
        parameters: Weights that a token is multiplied with.
        kv_bytes: Bytes of keys and values per token of context.
        weight_bytes: Bytes per weight: 2 in bfloat16, 1 in 8 bits.
    """

    parameters: float
    kv_bytes: float
    weight_bytes: float = 2.0

    def held_bytes(self, batch: int, context: int) -> float:
        """What must be in memory, and is read in each step: the weights and `batch` caches of `context` tokens."""
        return self.weight_bytes * self.parameters + batch * context * self.kv_bytes

    def step_s(self, gpu: Roofline, batch: int, context: int) -> float:
        """Seconds of one step on `gpu`."""
        return gpu.time_s(2 * self.parameters * batch, self.held_bytes(batch, context))

    def bound(self, gpu: Roofline, batch: int, context: int) -> Literal["compute", "memory"]:
        """What limits a step on `gpu`."""
        return gpu.bound(2 * self.parameters * batch, self.held_bytes(batch, context))

    def largest_batch(self, memory_bytes: float, context: int) -> int:
        """How many sequences of `context` tokens a card holds beside the weights; a bound, since buffers take room."""
        return max(0, int((memory_bytes - self.weight_bytes * self.parameters) // (context * self.kv_bytes)))
