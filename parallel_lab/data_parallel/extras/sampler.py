"""Who trains on which samples: every epoch a new order, and each sample on exactly one rank.

PyTorch's `DistributedSampler` repeats a few samples so that all ranks have equally many; this one repeats none, so
shares differ by one at most. Ranks take turns in the shuffled order: step i of all ranks together is the same
set of samples however many ranks there are.
"""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.problem import wait_for_failed_rank
from parallel_lab.runtime.group import member


class ShardedSampler:
    """Iterates over this rank's indices of a data set of `size` samples; also a sampler for a `DataLoader`.

    The ranks of `group` share the samples, by default all; without a group, this is share `rank` of `ranks`. With
    `shuffle`, each epoch has a new order, from `seed` and the epoch alone; call `set_epoch` before each. `drop_last`
    leaves out the last size % ranks samples of the order, so that all ranks have equally many. A rank that would get no
    sample raises ValueError, and the others of a group wait for it; `allow_empty` lets it have none.
    """

    @keyword_only()
    def __init__(
        self,
        size: int,
        *,
        rank: int | None = None,
        ranks: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        allow_empty: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        if (rank is None) != (ranks is None):
            raise ValueError(f"rank is {rank} and ranks is {ranks}: give both, or neither and a group")
        group = member(group) if rank is None else None
        self.rank, self.ranks = (group.rank(), group.size()) if group else (rank or 0, ranks or 0)
        if size < 0 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"{size} samples for rank {self.rank} of {self.ranks}: there is no such share")
        self.size, self.shuffle, self.seed, self.drop_last = size, shuffle, seed, drop_last
        self.epoch, self._begin = 0, 0
        self._drawn = Drawn(0)
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
        drawn = self._drawn = Drawn(self._begin)
        self._begin = 0
        drawn.loader = _loader()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist() if self.shuffle else range(self.size)
        for place in range(drawn.begin + self.rank, self._end, self.ranks):
            # Counted before it is handed out: who saves during a step has trained on the sample in hand.
            drawn.count += 1
            yield order[place]
        drawn.over = True

    @property
    def done(self) -> int:
        """How many samples of this epoch's order all ranks together were given, if all were given equally many.

        A `DataLoader` with workers draws ahead of the training. Counted is what it has handed on.
        """
        given = self._drawn.given()
        whole = self._drawn.over and given == self._drawn.count
        return self._end if whole else min(self._drawn.begin + given * self.ranks, self._end)

    def set_epoch(self, epoch: int) -> None:
        """Takes the order of `epoch` from the next iteration on; of another epoch than now, from its beginning."""
        if epoch != self.epoch:
            self.epoch, self._begin, self._drawn = epoch, 0, Drawn(0)

    def state_dict(self) -> dict[str, int | bool]:
        """Where this epoch stands: `done` counts the samples that all ranks together were given."""
        return {"size": self.size, "seed": self.seed, "shuffle": self.shuffle, "epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict) -> None:
        """The next iteration goes on where `state` was taken, also if it was with another number of ranks.

        Save when all ranks have been given equally many, and load for the same data set, seed and way to shuffle.
        """
        for name in ("size", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the saved sampler has {name}={state[name]}, this one {getattr(self, name)}")
        self.epoch, self._begin, self._drawn = state["epoch"], state["done"], Drawn(state["done"])


class Drawn:
    """What has been drawn of one epoch."""

    def __init__(self, begin: int) -> None:
        self.begin, self.count, self.over = begin, 0, False
        self.loader: dict[str, Any] | None = None

    def given(self) -> int:
        """How many of the samples drawn have been handed on."""
        if self.loader is None:
            return self.count
        batches = self.loader["_index_sampler"]  # the sampler itself where batch_size is None
        handed = self.loader["_num_yielded"] * getattr(batches, "batch_size", 1)
        left_out = self.over and getattr(batches, "drop_last", False) and self.count - handed < batches.batch_size
        return self.count if left_out else min(handed, self.count)


def _loader() -> dict[str, Any] | None:
    """The attributes of the `DataLoader`'s iterator among the callers, which knows what it has handed on.

    They outlive it, so that a state can be taken after a loop that was left early. The iterator itself must not: its
    end is what ends its worker processes.
    """
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != "_next_index":
        frame = frame.f_back
    return vars(frame.f_locals["self"]) if frame else None  # reading the locals of other frames would keep them alive


def _require_share(size: int, rank: int, ranks: int, group: dist.ProcessGroup | None) -> None:
    if rank >= size:
        raise ValueError(
            f"rank {rank} of {ranks} gets none of {size} samples: take fewer ranks or a larger batch or data set, or,"
            " inside DDP.join(), let this rank go without (allow_empty=True)"
        )
    if size < ranks and group:
        wait_for_failed_rank(group, f"rank {size} gets none of {size} samples")


class Share(NamedTuple):
    """A rank's part of a batch. Its mean loss times `weight` makes the mean over ranks the mean over the batch."""

    tensors: tuple[Tensor, ...]  # the rank's rows of each
    weight: float  # n * rows / batch


def shard_batch(*tensors: Tensor, allow_empty: bool = False, group: dist.ProcessGroup | None = None) -> Share:
    """Cuts a global batch, the same on every rank, along dim 0: rank r gets `tensor_split(n)[r]` of each tensor.

    Where there are fewer rows than ranks, it refuses as `ShardedSampler` does.
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
