"""Who trains on which samples: every epoch a new order, and each sample on exactly one rank.

PyTorch's `DistributedSampler` repeats a few samples so that all ranks have equally many; this one repeats none, so
shares differ by one at most. Ranks take turns in the shuffled order: step k of all ranks together is the same
set of samples however many ranks there are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.problem import wait_for_the_culprit
from parallel_lab.runtime.group import member

HELP = "take fewer ranks or a larger one, or, inside DDP.join(), let this rank go without (allow_empty=True)"


class ShardedSampler:
    """Iterates over this rank's indices of a data set of `size` samples; also a sampler for a `DataLoader`.

    Args:
        size: how many samples there are.
        group: whose ranks share them; or give `rank` and `ranks`, and no group is needed.
        shuffle: a new order each epoch, from `seed` and the epoch alone; call `set_epoch` before each.
        drop_last: leave out the last size % ranks samples of the order, so that all ranks have equally many.
        allow_empty: a rank may have no sample at all.

    Raises ValueError if size is negative, rank is not one of `ranks`, or there are fewer samples than ranks: on each
    rank that would get none, while those that have a sample wait for it in a barrier (if there is a group).
    """

    def __init__(
        self,
        size: int,
        group: dist.ProcessGroup | None = None,
        *,
        rank: int | None = None,
        ranks: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        allow_empty: bool = False,
    ) -> None:
        if (rank is None) != (ranks is None):
            raise ValueError(f"rank is {rank} and ranks is {ranks}: give both, or neither and a group")
        group = member(group) if rank is None else None
        self.rank = group.rank() if group else rank or 0
        self.ranks = group.size() if group else ranks or 0
        if size < 0 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"{size} samples for rank {self.rank} of {self.ranks}: there is no such share")
        self.size, self.shuffle, self.seed, self.drop_last = size, shuffle, seed, drop_last
        self.epoch, self.done, self._begin = 0, 0, 0
        if not allow_empty:
            _require_share(self._end, self.rank, self.ranks, group)

    @property
    def _end(self) -> int:
        """How many samples of the order are used."""
        return self.size - self.size % self.ranks if self.drop_last else self.size

    def __len__(self) -> int:
        """This rank's share of a whole epoch."""
        return len(range(self.rank, self._end, self.ranks))

    def __iter__(self) -> Iterator[int]:
        begin, self._begin, self.done = self._begin, 0, self._begin
        order = self._order
        for place in range(begin + self.rank, self._end, self.ranks):
            # Counted before it is handed out: who saves during a step has trained on the sample in hand.
            self.done = min(self.done + self.ranks, self._end)
            yield order[place]
        self.done = self._end

    @property
    def _order(self) -> list[int]:
        key = self.seed, self.epoch
        if getattr(self, "_key", None) != key:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).tolist() if self.shuffle else list(range(self.size))
            self._key, self._cached = key, order
        return self._cached

    def set_epoch(self, epoch: int) -> None:
        """Takes the order of `epoch` from the next iteration on; of another epoch than now, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self.done, self._begin = epoch, 0, 0

    def state_dict(self) -> dict[str, int | bool]:
        """Where this epoch stands: `done` counts the samples that all ranks together were given."""
        return {"size": self.size, "seed": self.seed, "shuffle": self.shuffle, "epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict) -> None:
        """The next iteration goes on where `state` was taken, also if it was with another number of ranks.

        Save when all ranks have drawn equally many. ValueError if it was another data set, seed or way to shuffle.
        """
        for name in ("size", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the saved sampler has {name}={state[name]}, this one {getattr(self, name)}")
        self.epoch = state["epoch"]
        self.done = self._begin = state["done"]


def _require_share(size: int, rank: int, ranks: int, group: dist.ProcessGroup | None) -> None:
    if size >= ranks:
        return
    if rank >= size:
        raise ValueError(f"rank {rank} of {ranks} gets none of {size} samples: {HELP}")
    if group:
        wait_for_the_culprit(group, f"rank {size} gets none of {size} samples")


class Share(NamedTuple):
    """A rank's part of a batch.

    Attributes:
        tensors: the rank's rows of each tensor.
        weight: n * rows / batch. A rank's mean loss times it makes the mean over ranks the mean over the batch.
    """

    tensors: tuple[Tensor, ...]
    weight: float


def shard_batch(*tensors: Tensor, group: dist.ProcessGroup | None = None, allow_empty: bool = False) -> Share:
    """Cuts a global batch, the same on every rank, along dim 0: rank r gets `tensor_split(n)[r]` of each tensor.

    Raises ValueError if the tensors have different numbers of rows, or there are fewer rows than ranks, as
    `ShardedSampler` does.
    """
    group = member(group)
    n, rank, sizes = group.size(), group.rank(), {len(tensor) for tensor in tensors}
    if len(sizes) != 1:
        raise ValueError(f"tensors of {sorted(sizes)} rows are not one batch")
    (size,) = sizes
    if not allow_empty:
        _require_share(size, rank, n, group)
    parts = tuple(tensor.tensor_split(n)[rank] for tensor in tensors)
    return Share(parts, n * len(parts[0]) / size if size else 0.0)
