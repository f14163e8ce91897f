"""Real text, and how the ranks share a batch.

The text is the Python language reference that CPython carries for its `help()`, `pydoc_data.topics`: about half a
megabyte of English that is there without a download. A byte is a token. Python versions differ a little in the text.

The contract of all batches here: the *global* batch of a step depends on the seed and the step, never on how many ranks
there are; rank r gets a contiguous share of it, and the shares in rank order are the global batch. So a run on any
number of ranks trains on what one process would have trained on. The loss is a mean over the global batch; where
shares are uneven, a rank's mean counts by its share: sum over r of (share_r / batch) * mean_r.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pydoc_data.topics import topics

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]  # inputs, targets
VALIDATION = 0.1  # the share of the text, at its end, that is never trained on


@dataclass(frozen=True)
class Batches:
    """`steps` batches from the endless iterator that `draw` starts; iterating again gives the same ones."""

    steps: int
    draw: Callable[[], Iterator[Batch]]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return islice(self.draw(), self.steps)


def tokenize(text: str) -> Tensor:
    """The UTF-8 bytes of `text` as tokens, uint8 (length,): an eighth of the memory that int64 takes."""
    return torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


@cache
def text(split: str = "train") -> Tensor:
    """The bytes of all topics, sorted by name, uint8 (length,): `train` is the first 90 %, `validation` the last 10 %.

    Split by position, not at random: a random split would put neighbors of each validation byte into the training
    text. The tensor is shared by all callers: leave it as it is.
    """
    return cut(tokenize("\n\n".join(topics[name] for name in sorted(topics))), split, "validation", VALIDATION)


def cut(items: Tensor, split: str, held_out: str, portion: float) -> Tensor:
    """The last `portion` of `items` for the split `held_out`, and what stands before for the split `train`.

    Raises:
        ValueError: there is no such split.
    """
    if split not in ("train", held_out):
        raise ValueError(f"there is no split {split!r}: expected train or {held_out}")
    first = len(items) - int(len(items) * portion)
    return items[:first] if split == "train" else items[first:]


def shard_sizes(total: int, world: int) -> list[int]:
    """How `total` things are shared among `world` ranks: `shard_sizes(10, 3)` is `[4, 3, 3]`."""
    if total < 0 or world < 1:
        raise ValueError(f"cannot share {total} things among {world} ranks")
    each, more = divmod(total, world)
    return [each + (rank < more) for rank in range(world)]


def share(batch: int, rank: int, world: int) -> slice:
    """Where rank's samples stand in a global batch.

    Raises:
        ValueError: there is no such rank, or it would get no sample.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} in a world of {world}")
    if batch < world:
        raise ValueError(f"a batch of {batch} leaves some of {world} ranks without a sample")
    sizes = shard_sizes(batch, world)
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def text_batches(
    seq: int,
    batch: int,
    steps: int,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
    data: Tensor | None = None,
    start: int = 0,
) -> Batches:
    """Rank's share of `steps` global batches of text: (tokens, targets), each int64 (share, seq).

    Each sequence starts at a random position that `seed` decides; its targets are the bytes one further on. `data` is
    a 1-d tensor of tokens, `text("train")` by default. With `start` the first so many batches are left out, as a run
    that goes on from there wants it.

    Raises:
        ValueError: `data` is too short, or a rank would get no sequence.
    """
    tokens = text("train") if data is None else data
    mine = share(batch, rank, world)
    if len(tokens) <= seq:
        raise ValueError(f"{len(tokens)} tokens of text hold no sequence of {seq} and its target")

    def draw() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(start):
            torch.randint(len(tokens) - seq, (batch,), generator=generator)
        while True:
            # All ranks draw all starts, so that the generator stands at the same place whatever the world size.
            starts = torch.randint(len(tokens) - seq, (batch,), generator=generator)[mine]
            windows = tokens[starts[:, None] + torch.arange(seq + 1)].long()  # (share, seq + 1)
            yield windows[:, :-1].clone(), windows[:, 1:].clone()

    return Batches(steps, draw)
