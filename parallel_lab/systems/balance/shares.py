"""Static shares by measured speed, and what becomes of them when speeds change.

Idea: rank r does speed_r samples a second. A synchronous step ends with its slowest rank, after max_r b_r / speed_r
seconds for shares b_r. Equal shares B/n take B/(n min speed); shares in proportion to speed take B / sum of speeds,
where they are whole numbers, which is mean(speed) / min(speed) times faster. Ranks of unlike shares have unlike
weights: the mean gradient of the global batch is sum_r b_r g_r / B, and not the mean of the ranks' means
(`shared_gradient`).

Speeds change, so `Meter` measures anew every few steps. New shares move the boundaries between the ranks' contiguous
parts of the data; samples that change their owner travel (`redistribute`), which must pay within the steps that are
left (`pays_after`).

Sharded: the samples. Replicated: the model. Bytes: n numbers at a measurement, `moved` samples at a new cut.
"""

import heapq
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from statistics import fmean, median

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import whole
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


def proportional(total: int, speeds: Sequence[float], least: int = 1) -> list[int]:
    """Whole shares of `total` samples with the least max_r b_r / speed_r; each rank gets `least` at least.

    Each next sample goes to the rank that would be done with it first. Why that is best: let T be the least possible
    maximum. In a cut that reaches it, rank r has at most speed_r T samples. While samples are left, some rank has fewer
    than there, so it would be done with one more by T; the rank that is chosen is done no later.

    Raises:
        ValueError: a speed is not positive, or `total` does not give each rank `least`.
    """
    if min(speeds, default=0) <= 0 or not all(map(math.isfinite, speeds)):
        raise ValueError(f"speeds {list(speeds)}: expected a positive number for each rank")
    if total < least * len(speeds):
        raise ValueError(f"{total} samples do not give each of {len(speeds)} ranks {least}")
    shares = [least] * len(speeds)
    done = [((least + 1) / speed, rank) for rank, speed in enumerate(speeds)]
    heapq.heapify(done)
    for _ in range(total - sum(shares)):
        rank = done[0][1]
        shares[rank] += 1
        heapq.heapreplace(done, ((shares[rank] + 1) / speeds[rank], rank))
    return shares


def step_s(shares: Sequence[int], speeds: Sequence[float]) -> float:
    """Seconds of a step: those of the slowest rank."""
    return max(share / speed for share, speed in zip(shares, speeds, strict=True))


def gain(speeds: Sequence[float]) -> float:
    """How many times faster a step is with shares in proportion to speed than with equal ones, if samples divide."""
    return fmean(speeds) / min(speeds)


def bounds(shares: Sequence[int]) -> list[tuple[int, int]]:
    """The first sample of each rank's contiguous part, and the one after its last."""
    return list(pairwise(accumulate(shares, initial=0)))


def moves(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """What travels from shares `old` to `new`, as (from, to, first sample, one after the last), in order of samples."""
    found = []
    for source, (first, stop) in enumerate(bounds(old)):
        for target, (begin, end) in enumerate(bounds(new)):
            if source != target and max(first, begin) < min(stop, end):
                found.append((source, target, max(first, begin), min(stop, end)))
    return found


def moved(old: Sequence[int], new: Sequence[int]) -> int:
    """How many samples change their owner."""
    return sum(stop - first for _, _, first, stop in moves(old, new))


def pays_after(old: Sequence[int], new: Sequence[int], speeds: Sequence[float], sample_s: float) -> float:
    """After how many steps a new cut has paid, if moving a sample takes `sample_s`; infinity where it never does.

    Samples are counted one after another, as if all crossed one link: an upper bound where several links work at once.
    """
    saved_s = step_s(old, speeds) - step_s(new, speeds)
    return moved(old, new) * sample_s / saved_s if saved_s > 0 else math.inf


def redistribute(
    rows: Tensor, old: Sequence[int], new: Sequence[int], *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """This rank's rows after the cut `new`, from its rows of the cut `old`, (share, ...); others send what they had.

    Raises:
        ValueError: `rows` are not as many as `old` says.
    """
    group = member(group)
    rank = group.rank()
    (had, until), (begin, end) = bounds(old)[rank], bounds(new)[rank]
    if len(rows) != until - had:
        raise ValueError(f"rank {rank} has {len(rows)} rows, its share was {until - had}")
    mine = rows.new_empty(end - begin, *rows.shape[1:])
    if (stays := max(had, begin)) < (to := min(until, end)):
        mine[stays - begin : to - begin] = rows[stays - had : to - had]
    calls = []
    for source, target, first, stop in moves(old, new):
        if source == rank:
            part = rows[first - had : stop - had].contiguous()
            calls.append(dist.P2POp(dist.isend, part, group=group, group_peer=target))
        if target == rank:
            calls.append(dist.P2POp(dist.irecv, mine[first - begin : stop - begin], group=group, group_peer=source))
    with tag(phase="move"):
        for work in dist.batch_isend_irecv(calls) if calls else ():
            work.wait()
    return mine


class Meter:
    """Measures speeds over the last `every` steps, and says then how the batch should be cut.

    The median of a window counts, so that one step in which something else ran changes nothing.

    Attributes:
        shares: the cut as it is.
        speeds: of all ranks, samples a second, as measured last; empty before.
    """

    def __init__(self, total: int, *, every: int = 5, group: dist.ProcessGroup | None = None) -> None:
        self.group, self.total, self.every = member(group), total, whole("every", every)
        self.shares = proportional(total, [1.0] * self.group.size())
        self.speeds: list[float] = []
        self.sample_s: list[float] = []

    def step(self, seconds: float) -> bool:
        """Notes how long this rank took for its share, without waiting for others; True when the cut has changed.

        Every `every` steps it exchanges the speeds: all ranks call it in each step.
        """
        self.sample_s.append(seconds / self.shares[self.group.rank()])
        if len(self.sample_s) < self.every:
            return False
        speed = torch.tensor([1 / max(median(self.sample_s), 1e-9)], dtype=torch.float64, device=rank_device())
        self.sample_s = []
        speeds = [torch.zeros_like(speed) for _ in range(self.group.size())]
        with tag(phase="measure"):
            dist.all_gather(speeds, speed, group=self.group)
        self.speeds = [each.item() for each in speeds]
        old, self.shares = self.shares, proportional(self.total, self.speeds)
        return old != self.shares
