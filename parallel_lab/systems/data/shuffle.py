"""A shuffle that streams: samples come out of shards in another order, and only `buffer` of them are held at a time.

The buffer is full first. Then each sample that comes in takes the place of a random one, which goes out. When the
shards are at their end, the rest goes out in random order. A sample can leave at most `buffer - 1` places before its
turn, and stays a random time: it is there after so many `more` samples with probability (1 - 1/buffer)^more.

So a buffer that is small beside the data forgets only what is near. Data that are sorted stay nearly sorted, unless
the order of the shards is shuffled as well. Neighbors in a shard then still come close to each other, since a shard is
read in one piece. `quality` measures both, and `sorted_loss` what it does to training.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")


def buffered(items: Iterable[T], buffer: int, dice: random.Random) -> Iterator[T]:
    """`items` in another order, each once, at most `buffer` of them held.

    Raises:
        ValueError: the buffer holds nothing.
    """
    if buffer < 1:
        raise ValueError(f"a buffer of {buffer}: expected at least 1")
    held: list[T] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = dice.randrange(buffer)
        held[place], item = item, held[place]
        yield item
    dice.shuffle(held)
    yield from held


def dice_of(*numbers: int) -> random.Random:
    """A generator for these numbers, such as seed, epoch and stream; the same in every process."""
    return random.Random(" ".join(map(str, numbers)))


def in_shards(sizes: Sequence[int], seed: int = 0, epoch: int = 0) -> list[int]:
    """Shards in their order, each shuffled by itself."""
    dice, starts = dice_of(seed, epoch), _starts(sizes)
    return [
        number
        for start, size in zip(starts, sizes, strict=True)
        for number in dice.sample(range(start, start + size), size)
    ]


def streamed(
    sizes: Sequence[int], buffer: int, seed: int = 0, epoch: int = 0, shuffled_shards: bool = True
) -> list[int]:
    """Shards in another order (or with `shuffled_shards=False` in their own), through one buffer."""
    dice, starts = dice_of(seed, epoch), _starts(sizes)
    order = list(range(len(sizes)))
    if shuffled_shards:
        dice.shuffle(order)
    read = (number for shard in order for number in range(starts[shard], starts[shard] + sizes[shard]))
    return list(buffered(read, buffer, dice))


def permuted(sizes: Sequence[int], seed: int = 0, epoch: int = 0) -> list[int]:
    """All samples in a random order: what it takes is to read each sample by itself, or to hold them all."""
    return dice_of(seed, epoch).sample(range(sum(sizes)), sum(sizes))


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:shard]) for shard in range(len(sizes))]


class Quality(NamedTuple):
    """How far an order is from that of the disk, and what a full permutation has on average."""

    correlation: float  # of the places before and after, by rank (Spearman 1904): 1 in order, about 0 when random
    together: float  # the share of neighbors on disk that are in one batch
    together_at_random: float  # (batch - 1) / (samples - 1)
    labels: float  # how many different labels a batch has, on average
    labels_at_random: float


def quality(order: Sequence[int], labels: Sequence[int], batch: int) -> Quality:
    """Measures an order of all samples, whose labels stand in the order of the disk."""
    count = len(order)
    place = torch.empty(count, dtype=torch.float64)
    place[torch.tensor(order)] = torch.arange(count, dtype=torch.float64)
    both = torch.stack([torch.arange(count, dtype=torch.float64), place])
    batches = place.long() // batch
    label = torch.tensor(labels)[torch.tensor(order)].split(batch)
    kinds = [len(one.unique()) for one in label if len(one) == batch]
    return Quality(
        float(torch.corrcoef(both)[0, 1]),
        float((batches[1:] == batches[:-1]).double().mean()),
        (batch - 1) / (count - 1),
        sum(kinds) / max(len(kinds), 1),
        labels_at_random(labels, batch),
    )


def labels_at_random(labels: Sequence[int], batch: int) -> float:
    """How many different labels a random batch has on average.

    A label that `own` of `count` samples have is missing with comb(count - own, batch) / comb(count, batch).
    """
    count, expected = len(labels), 0.0
    for own in torch.tensor(labels).unique(return_counts=True)[1].tolist():
        missing = 1.0
        for drawn in range(batch):
            missing *= max(count - own - drawn, 0) / (count - drawn)
        expected += 1 - missing
    return expected


def sorted_loss(
    data: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    order: Sequence[int],
    batch: int = 32,
    lr: float = 0.1,
    seed: int = 0,
) -> float:
    """The test loss of a linear classifier after one pass over `data` in this order, by plain SGD.

    Args:
        data: inputs (samples, features) and labels (samples,), in the order of the disk.
        test: the same of the test.
        order: of the samples.
        batch: samples of a step.
        lr: of SGD.
        seed: of the first weights.
    """
    inputs, labels = data
    model = nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    nn.init.normal_(model.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for chosen in torch.tensor(order).split(batch):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        return float(F.cross_entropy(model(test[0]), test[1]))
