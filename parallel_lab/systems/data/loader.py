"""Loaders whose place can be saved, and which go on from there with another number of ranks or workers.

Two kinds, for two kinds of storage:

- `IndexedLoader`: any sample can be read by its index, as from memory-mapped tokens. The order is a full permutation of
  each epoch, and a place is one number, how many samples all ranks had (`resilience.order`).
- `StreamLoader`: shards are read in one piece, as from an object store. The samples of an epoch are dealt to a fixed
  number of *streams*: each has its own shards, its own shuffle buffer, and an order that only the seed and the epoch
  decide. A rank or a worker *drives* some of the streams. So no shard is read twice, and a place is one number a
  stream. When the world changes, streams change their driver; each goes on where it was.

A place counts what was handed to training. What a worker has read ahead is not in it, and is read again after a resume:
who counts what was read loses those samples. A stream that goes on draws its order again, which reads nothing, and then
reads the shards that still have samples in the buffer or before them.

The streams should be a multiple of every world (and of world times workers) that is to run: 12 suit 1, 2, 3, 4 and 6
ranks. Otherwise some ranks drive one stream more, and get more samples a round.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from parallel_lab.systems.data.shuffle import buffered, dice_of
from parallel_lab.systems.resilience.order import Order

Read = Callable[[int], Sequence[Any]]  # a shard's number to its samples


class IndexedLoader:
    """Rank's share of each global batch, by random access.

    Args:
        samples: anything with `len` and an item for each index.
        batch: samples that all ranks together take in a step.
        seed: of the order; the same on all ranks.
        rank: which share.
        ranks: how many shares.
    """

    def __init__(self, samples: Sequence[Any], batch: int, *, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        self.samples, self.batch, self.rank, self.ranks = samples, batch, rank, ranks
        self.order, self.position = Order(len(samples), seed), 0

    def __next__(self) -> list[Any]:
        """The next share, as a list of samples."""
        chosen = self.order.take(self.position, self.batch, rank=self.rank, ranks=self.ranks).tolist()
        self.position += self.batch
        return [self.samples[index] for index in chosen]

    def __iter__(self) -> "IndexedLoader":
        """Itself: the epochs have no end."""
        return self

    def state_dict(self) -> dict[str, int]:
        """The place: the same on all ranks, and right for any number of them."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on from a place, which a run with any number of ranks may have saved."""
        self.position = state["position"]


class Sample(NamedTuple):
    """A sample, and the stream that it came from."""

    stream: int
    value: Any


class StreamLoader(IterableDataset):
    """The samples of one epoch that this rank (or this worker of it) drives, from shards that are read in one piece.

    Iterate, and call `taken(sample)` for each sample that was trained on. As the dataset of a `DataLoader` with workers
    it is copied into each; only the copy in the training process counts.

    Args:
        sizes: samples in each shard.
        read: gives a shard's samples.
        streams: how many there are, whatever the world.
        buffer: samples that each stream shuffles among.
        seed: of the order; the same on all ranks.
        rank: which share of the streams.
        ranks: how many shares.

    Raises:
        ValueError: a rank would drive no stream, or a stream would have no shard.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        read: Read,
        *,
        streams: int = 12,
        buffer: int = 64,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not ranks <= streams <= len(sizes):
            raise ValueError(f"{ranks} ranks, {streams} streams, {len(sizes)} shards: each needs one of the next")
        self.sizes, self.read, self.streams, self.buffer, self.seed = list(sizes), read, streams, buffer, seed
        self.rank, self.ranks = rank, ranks
        self.epoch, self.delivered = 0, Counter()
        self.reads = 0  # how many shards were read
        self.most_held = 0  # how many samples one stream held at most: its buffer and a shard

    def shards_of(self, stream: int) -> list[int]:
        """The shards of a stream in this epoch: all shards in a random order, dealt out one by one."""
        order = dice_of(self.seed, self.epoch).sample(range(len(self.sizes)), len(self.sizes))
        return order[stream :: self.streams]

    def order_of(self, stream: int) -> list[tuple[int, int]]:
        """All samples of a stream in this epoch as (shard, place in it), in the order in which they come."""
        read = ((shard, place) for shard in self.shards_of(stream) for place in range(self.sizes[shard]))
        return list(buffered(read, self.buffer, dice_of(self.seed, self.epoch, stream)))

    def driven(self) -> list[int]:
        """The streams of this rank, or of this worker of it."""
        own, worker = list(range(self.rank, self.streams, self.ranks)), get_worker_info()
        return own[worker.id :: worker.num_workers] if worker else own

    def __iter__(self) -> Iterator[Sample]:
        """What is left of the epoch: one sample of each driven stream in turn, until all are at their end."""
        turns = [self._stream(stream) for stream in self.driven()]
        while turns:
            going = []
            for turn in turns:
                for sample in islice(turn, 1):
                    going.append(turn)
                    yield sample
            turns = going

    def _stream(self, stream: int) -> Iterator[Sample]:
        order = self.order_of(stream)[self.delivered[stream] :]
        wanted: dict[int, set[int]] = defaultdict(set)
        for shard, place in order:
            wanted[shard].add(place)
        held: dict[tuple[int, int], Any] = {}
        for shard, place in order:
            if shard in wanted:  # read once, and only what is still to come of it is kept
                samples, self.reads = self.read(shard), self.reads + 1
                held |= {(shard, of_it): samples[of_it] for of_it in wanted.pop(shard)}
            self.most_held = max(self.most_held, len(held))
            yield Sample(stream, held.pop((shard, place)))

    def taken(self, sample: Sample) -> None:
        """Counts a sample that was handed to training."""
        self.delivered[sample.stream] += 1

    def next_epoch(self) -> None:
        """Begins the next epoch, in another order."""
        self.epoch, self.delivered = self.epoch + 1, Counter()

    def state_dict(self, group: dist.ProcessGroup | None = None) -> dict[str, Any]:
        """The place of all streams, the same on every rank: each is driven by one rank, so counts add up."""
        counts = torch.tensor([self.delivered[stream] for stream in range(self.streams)])
        if self.ranks > 1:
            own = torch.zeros_like(counts)
            own[self.rank :: self.ranks] = counts[self.rank :: self.ranks]
            dist.all_reduce(counts := own, group=group)
        return {"epoch": self.epoch, "delivered": counts.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a place, which a run with any number of ranks and workers may have saved.

        Raises:
            ValueError: the place is one of another number of streams.
        """
        if len(state["delivered"]) != self.streams:
            raise ValueError(f"the place has {len(state['delivered'])} streams, this loader {self.streams}")
        self.epoch, self.delivered = state["epoch"], Counter(dict(enumerate(state["delivered"])))
