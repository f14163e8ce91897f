"""Silent data corruption: a rank computes or stores a wrong number, and nothing says so.

Two things find it. *Replicas*: data-parallel ranks must hold the same bits, so a checksum of eight bytes a rank is
all-gathered every few steps, and the rank that differs from the majority is named; of two ranks nobody can say which is
wrong. *Norms*: a gradient norm far outside those of the last steps.

Each misses what the other may find. A number that is wrong before the all-reduce is spread by it: every replica is
wrong in the same way, and all checksums agree. A number that is wrong after it shows in the checksums, whatever its
size, and in a norm only if it is large: the low bits of a mantissa never are.

Sent: 8 (n - 1) bytes a rank for each comparison. Read: all weights and moments once.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab import compat
from parallel_lab.runtime.group import member

CHECKSUM_BYTES = 8
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: its multiples look like random numbers
WINDOW, TIMES = 20, 10.0
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(tensor: Tensor) -> Tensor:
    """The bits of `tensor` as integers of the same width, in one row; a view where the tensor is contiguous."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.detach().contiguous().view(_WORDS[real.element_size()]).reshape(-1)


def flip(tensor: Tensor, index: int, bit: int) -> None:
    """Flips one bit of element `index` of a flattened float32 tensor, in its place; bit 31 is the sign.

    Raises:
        ValueError: the tensor is of another dtype or not contiguous, or it has no such element or bit.
    """
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise ValueError(f"flip() needs a contiguous float32 tensor, got {tensor.dtype}")
    if not (0 <= index < tensor.numel() and 0 <= bit < 32):
        raise ValueError(f"element {index}, bit {bit}: expected an element below {tensor.numel()} and a bit below 32")
    words = tensor.detach().view(torch.int32).reshape(-1)
    words[index] ^= 1 << bit if bit < 31 else -(2**31)


def checksum(tensors: Iterable[Tensor]) -> int:
    """64 bits over all bits of `tensors`: the sum of each word times an odd number of its own, modulo 2^64.

    An odd factor keeps every single flipped bit in the sum, so one flip always shows. Several flips may cancel each
    other, which is rare: of two flipped signs about once in 2^32. It is no defense against a forger.
    """
    total, start = 0, 1
    for tensor in tensors:
        words = bits_of(tensor).long()
        places = torch.arange(start, start + len(words), device=words.device)
        factors = places * (GOLDEN - 2**64) | 1  # int64 wraps around, which is the modulus
        total = (total + int((words * factors).sum())) % 2**64
        start += len(words)
    return total


def held_by(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[Tensor]:
    """The tensors that every replica must have alike: weights, buffers, and the optimizer's moments."""
    held = list(model.state_dict().values())
    if optimizer:
        rows = (optimizer.state[p] for group in optimizer.param_groups for p in group["params"] if p in optimizer.state)
        held += [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    return held


@dataclass(frozen=True)
class Replicas:
    """What a comparison of replicas found. Its text is what one reads in a log.

    Attributes:
        sums: the checksum of each rank.
    """

    sums: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether all ranks hold the same bits."""
        return len(set(self.sums)) == 1

    @property
    def odd(self) -> tuple[int, ...]:
        """The ranks that differ from more than half of all; empty where there is no such majority."""
        usual, count = Counter(self.sums).most_common(1)[0]
        return tuple(r for r, s in enumerate(self.sums) if s != usual) if count > len(self.sums) / 2 else ()

    def __str__(self) -> str:
        n = len(self.sums)
        if self.equal:
            return f"all {n} replicas hold the same bits (checksum {self.sums[0]:016x})"
        if self.odd:
            names = ", ".join(map(str, self.odd))
            subject = f"rank {names} of {n} differs" if len(self.odd) == 1 else f"ranks {names} of {n} differ"
            return f"{subject} from the majority"
        return f"the {n} replicas differ, and there is no majority: nobody can say which is wrong"


def compare_replicas(tensors: Iterable[Tensor], *, group: dist.ProcessGroup | None = None) -> Replicas:
    """Compares the bits of `tensors` over the ranks of `group`, all of which call it; 8 bytes a rank are gathered."""
    group, tensors = member(group), list(tensors)
    mine = checksum(tensors)
    device = tensors[0].device if tensors else torch.device("cpu")
    signed = torch.tensor([mine - 2**64 if mine >= 2**63 else mine], device=device)
    sums = torch.empty(group.size(), dtype=torch.int64, device=device)
    compat.all_gather_single(sums, signed, group=group)
    return Replicas(tuple(each % 2**64 for each in sums.tolist()))


def norm(tensors: Iterable[Tensor]) -> float:
    """The square root of the sum of squares, in float64; NaN or infinity where an element is."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def is_outlier(value: float, before: Sequence[float], times: float = TIMES) -> bool:
    """Whether `value` is far from what came before: further from the median than `times` the median distance from it.

    Median and median distance do not move with a few outliers among `before`, as a mean and a deviation would. NaN and
    infinity are outliers.
    """
    if not math.isfinite(value):
        return True
    recent = before[-WINDOW:]
    if len(recent) < WINDOW // 2:
        return False
    middle = median(recent)
    spread = median(abs(each - middle) for each in recent)
    return abs(value - middle) > times * max(spread, 1e-3 * abs(middle))
