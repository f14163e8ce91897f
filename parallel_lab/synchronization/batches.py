"""Which batches a rank trains on, and for how many rounds.

`batches` is either a function (rank, ranks) -> the rank's own batches, or the global batches, of which each rank takes
its contiguous share. Shares may be uneven, and a rank may get nothing at all in a round: then it stands for no samples,
but takes part in the round's communication.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist

from parallel_lab.model.data import Batch, shard_sizes

Source = Iterable[Batch] | Callable[[int, int], Iterable[Batch]]


@dataclass(frozen=True)
class Shares:
    """One rank's share of each global batch (inputs, targets); empty tensors where it gets none."""

    batches: Iterable[Batch]
    rank: int
    ranks: int

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.batches:
            sizes = shard_sizes(len(inputs), self.ranks)
            yield inputs.split(sizes)[self.rank], targets.split(sizes)[self.rank]


def own(batches: Source, rank: int, ranks: int) -> Iterable[Batch]:
    """The batches of one rank."""
    return batches(rank, ranks) if callable(batches) else Shares(batches, rank, ranks)


def count(stream: Iterable[Batch], steps: int | None) -> int:
    """How many batches to draw: all of them, or `steps` if that is less."""
    try:
        length = len(stream)  # type: ignore[arg-type]
    except TypeError:
        length = steps
    if length is None:
        raise TypeError("the batches do not say how many they are: give steps=")
    if length == 0:
        raise ValueError("no batches to train on")
    return length if steps is None else min(length, steps)


def agreed_rounds(stream: Iterable[Batch], steps: int | None, device: torch.device, group: dist.ProcessGroup) -> int:
    """The rounds of the rank that has most, so that every rank takes part in each collective; 8 bytes."""
    most = torch.tensor(count(stream, steps), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    return int(most)


def padded(stream: Iterable[Batch], rounds: int) -> Iterator[Batch | None]:
    """`rounds` items: the batches, and None once they have run out or where a batch is empty."""
    left = rounds
    for inputs, targets in islice(stream, rounds):
        left -= 1
        yield (inputs, targets) if len(inputs) else None
    yield from [None] * left
