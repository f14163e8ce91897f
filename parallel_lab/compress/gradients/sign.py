"""Signs: one bit an element, and one or two numbers that say how large they were.

`Sign` is Karimireddy et al. 2019, "Error Feedback Fixes SignSGD", algorithm 1: the sign of each element times the mean
size of all, from each rank to all. With `vote` it is Bernstein et al. 2018, "signSGD", algorithm 3 (majority vote): the
sign that most ranks have, without a size, so that the learning rate is a step's length; it has no memory and needs none
of the sizes. `OneBit` is Seide et al. 2014, "1-Bit Stochastic Gradient Descent", with blocks for its columns: in each
the elements above zero become their mean, and so do those below. Each rank owns an n-th of the elements, adds up what
the others send of it, and sends the mean on in one bit again. Both times error feedback keeps what is lost.

    sent per rank and step, N elements, blocks of so many
    Sign                   (n-1) (N/8 + 4) bytes: every rank's bits go to all
    OneBit                 2 (n-1)/n (N/8 + 8 N/block) bytes: as an all-reduce, it does not grow with n
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from parallel_lab.compress.gradients.error_feedback import Bucket, Compressed, Exchange, Result
from parallel_lab.compress.gradients.wire import (
    SCALE_BYTES,
    Sizes,
    elements_of,
    gather,
    joined,
    pack,
    packed_bytes,
    parted,
    unpack,
)


class Sign(Compressed):
    """A hook of DDP: `DDP(model, hook=Sign())`.

    Args:
        error_feedback: False forgets what signs leave out; it then need not converge.
        vote: the sign of the majority, without a size and without error feedback; zero in a tie.
    """

    def __init__(self, *, error_feedback: bool = True, vote: bool = False) -> None:
        super().__init__(error_feedback=error_feedback and not vote)
        self.vote = vote

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """One all-gather of bits and a scale."""
        elements, n = len(vector), group.size()
        scale, negative = vector.abs().mean().float().view(1), vector < 0
        work, every = gather(group, joined(scale, pack(negative.byte(), 1)))
        rest = vector - _signed(negative, scale.to(vector)) if self.error_feedback else None
        yield work
        scales, bits = parted(every, (torch.float32, 1), (torch.uint8, packed_bytes(elements, 1)))
        mean = torch.zeros_like(vector)
        for scale, row in zip(scales.to(vector), bits, strict=True):
            size = 1 + 0 * scale if self.vote else scale  # a NaN of the guard reaches all ranks
            mean += _signed(unpack(row, 1, elements), size / n)
        return Result(mean.sign() + 0 * mean[0] if self.vote else mean, rest)

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """(n-1) (N/8 + 4), for one bucket, whatever a gradient's `item_bytes` are."""
        return (n - 1) * (packed_bytes(elements_of(elements), 1) + SCALE_BYTES)


def _signed(negative: Tensor, scale: Tensor) -> Tensor:
    """`-scale` where a bit is set, and `scale` elsewhere."""
    return torch.where(negative.bool(), -scale, scale)


class OneBit(Compressed):
    """A hook of DDP: `DDP(model, hook=OneBit())`. `block` elements share two means; 8 divides it."""

    def __init__(self, *, block: int = 512, error_feedback: bool = True) -> None:
        super().__init__(error_feedback=error_feedback)
        if block < 8 or block % 8:
            raise ValueError(f"block={block}: expected a multiple of 8 elements that share two means")
        self.block = block

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """An all-to-all to the owners of the elements, and an all-gather of what they make of it."""
        elements, n, key = len(vector), group.size(), f"owner of {bucket.names[0]}"
        size = self.owned(elements, n)
        parts = pad(vector, (0, n * size - elements)).view(n, size)  # a row for each owner
        codes = self.encode(parts)
        rest = (parts - self.decode(codes, parts)).view(-1)[:elements] if self.error_feedback else None
        arrived = torch.empty_like(codes)
        yield dist.all_to_all_single(arrived, codes, group=group, async_op=True)
        mine = self.decode(arrived, parts).mean(0)  # (size,)
        if self.error_feedback and key in self.kept and self.kept[key].shape == mine.shape:
            mine += self.kept[key].to(mine)
        code = self.encode(mine)
        owed = {key: mine - self.decode(code, mine)} if self.error_feedback else {}
        work, every = gather(group, code)
        yield work
        return Result(self.decode(every, parts).view(-1)[:elements], rest, owed)

    def encode(self, vector: Tensor) -> Tensor:
        """(..., size) as bytes: of each block the mean of what is below zero and of what is not, then the bits."""
        blocks = vector.unflatten(-1, (-1, self.block))
        negative = blocks < 0
        counts = negative.sum(-1)
        low = torch.where(negative, blocks, 0).sum(-1) / counts.clamp(min=1)
        high = torch.where(negative, 0, blocks).sum(-1) / (self.block - counts).clamp(min=1)
        return joined(low.float(), high.float(), pack(negative.flatten(-2).byte(), 1))

    def decode(self, codes: Tensor, like: Tensor) -> Tensor:
        """What the bytes stand for, (..., size), in the dtype of `like`."""
        size = like.shape[-1]
        means, bits = (torch.float32, size // self.block), (torch.uint8, packed_bytes(size, 1))
        low, high, negative = parted(codes, means, means, bits)
        blocks = unpack(negative, 1, size).bool().unflatten(-1, (-1, self.block))
        return torch.where(blocks, low.to(like).unsqueeze(-1), high.to(like).unsqueeze(-1)).flatten(-2)

    def owned(self, elements: int, n: int) -> int:
        """The elements of each owner: an n-th, rounded up to whole blocks."""
        return -(-elements // (n * self.block)) * self.block

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """2 (n-1) messages of an owner's elements, for one bucket, whatever a gradient's `item_bytes` are."""
        size = self.owned(elements_of(elements), n)
        return 2 * (n - 1) * (packed_bytes(size, 1) + 2 * SCALE_BYTES * size // self.block)
