"""The order of samples over epochs, and one number that says how far a run has come in it.

Each epoch is a permutation of all samples, drawn from the seed and the number of the epoch. Epoch after epoch they make
one endless sequence. A *position* counts the samples of this sequence that were trained on, by all ranks together. So
it is the same number on every rank, it stands in the checkpoint once, and it means the same to any number of ranks:

    a step at a position, with a global batch    position, position + 1, …, position + batch - 1 of the sequence
    of it rank r of n                            its contiguous share, sizes that differ by one at most
    after the step                               position + batch

Each sample comes exactly once an epoch, whatever the number of ranks, and also where that number changes in the middle
of an epoch. Nothing is padded and nothing dropped: a batch may reach over the end of an epoch, and a rank may have one
sample less than another, so a mean over ranks must count by samples. A global batch that the number of ranks changes
would change the training, though not the order: keep it, or change the learning rate with it.

A rank holds the permutation of one epoch, 8 bytes a sample. torch does not promise that `randperm` draws the same in
its next version, so a run should end with the version that it began with.
"""

import torch
from torch import Tensor

from parallel_lab.model.data import shard_sizes


class Order:
    """The endless sequence of `samples` samples, shuffled anew each epoch.

    Args:
        samples: how many there are.
        seed: of the permutations; the same on all ranks.

    Raises:
        ValueError: there is no sample.
    """

    def __init__(self, samples: int, seed: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"samples={samples}: expected at least 1")
        self.samples, self.seed = samples, seed
        self._epoch, self._drawn = -1, torch.empty(0, dtype=torch.int64)

    def take(self, position: int, count: int, *, rank: int = 0, ranks: int = 1) -> Tensor:
        """What `rank` trains on of the `count` samples from `position` on: their indices, int64, in order.

        Args:
            position: how many samples all ranks together had before.
            count: how many all ranks together take now, the global batch.
            rank: which share.
            ranks: how many shares there are.

        Raises:
            ValueError: there is no such rank, or a number is negative.
        """
        if not 0 <= rank < ranks or min(position, count) < 0:
            raise ValueError(f"position={position}, count={count}, rank={rank}, ranks={ranks}: there is no such share")
        sizes = shard_sizes(count, ranks)
        first = position + sum(sizes[:rank])
        return self.span(first, first + sizes[rank])

    def span(self, first: int, last: int) -> Tensor:
        """The indices at the positions from `first` to before `last`."""
        parts = [torch.empty(0, dtype=torch.int64)]
        while first < last:
            epoch, start = divmod(first, self.samples)
            parts.append(self.epoch(epoch)[start : start + last - first])
            first += len(parts[-1])
        return torch.cat(parts)

    def epoch(self, number: int) -> Tensor:
        """The permutation of an epoch."""
        if number != self._epoch:
            generator = torch.Generator().manual_seed((1_000_003 * self.seed + number) % 2**63)
            self._epoch, self._drawn = number, torch.randperm(self.samples, generator=generator)
        return self._drawn
