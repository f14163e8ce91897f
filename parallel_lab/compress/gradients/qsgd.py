"""QSGD: each element is rounded up or down by chance, so that it is right on average.

Alistarh et al. 2017, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", section 3.1. An
element over the norm of its block lies, without its sign, between two of 0, 1/levels, ..., 1; it becomes the upper one
with the probability that makes the expectation right (lemma 3.1: unbiased, with a variance of at most
min(block/levels^2, sqrt(block)/levels) norm^2 for a block of so many). So no memory is needed; the price is noise,
which more levels or smaller blocks lower. The paper codes levels in Elias' code, which is short where most are zero;
here each takes the same few bits.

    sent per rank and step (n-1) (bits N/8 + 4 N/block) bytes, with bits for one of 2 levels + 1 codes: all go to all
"""

from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from parallel_lab.agree.arguments import whole
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
    width_for,
)


class QSGD(Compressed):
    """A hook of DDP: `DDP(model, hook=QSGD(levels=7))`.

    Args:
        levels: 1 to 127. 1, 7 and 127 make the most of 2, 4 and 8 bits an element.
        block: how many elements share a norm (the paper's bucket).
        seed: of the chance; each rank draws its own.

    Raises:
        ValueError: `levels` or `block` is too small, or a level does not fit in a byte.
    """

    smallest: ClassVar[float] = torch.finfo(torch.float32).tiny  # a norm of zero divides nothing

    def __init__(self, levels: int = 7, *, block: int = 512, seed: int = 0) -> None:
        super().__init__(error_feedback=False, seed=seed)
        self.levels, self.block = whole("levels", levels), whole("block", block)
        self.bits = width_for(2 * levels + 1)

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """One all-gather of norms and codes."""
        elements, n = len(vector), group.size()
        norms, codes = self.quantize(vector, self.generator(bucket, group.rank()))
        work, every = gather(group, joined(norms, pack(codes, self.bits)))
        yield work
        kinds = (torch.float32, len(norms)), (torch.uint8, packed_bytes(elements, self.bits))
        mean = torch.zeros_like(vector)
        for norms, row in zip(*parted(every, *kinds), strict=True):
            mean += self.dequantize(norms.to(vector), unpack(row, self.bits, elements)) / n
        return Result(mean)

    def quantize(self, vector: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """The norm of each block, float32 (blocks,), and codes from 0 to 2 levels, uint8 (elements,)."""
        blocks = pad(vector, (0, -len(vector) % self.block)).view(-1, self.block)
        norms = blocks.norm(dim=1).float()
        exact = blocks / norms.to(blocks).clamp(min=self.smallest).unsqueeze(1) * self.levels  # from -levels to levels
        drawn = torch.rand(exact.shape, generator=chance, dtype=exact.dtype, device=exact.device)
        codes = (exact + drawn).floor() + self.levels  # up with the probability that is left over
        return norms, codes.clamp(0, 2 * self.levels).to(torch.uint8).view(-1)[: len(vector)]

    def dequantize(self, norms: Tensor, codes: Tensor) -> Tensor:
        """What the codes stand for (elements,)."""
        blocks = pad(codes, (0, -len(codes) % self.block)).view(-1, self.block).to(norms.dtype)
        return ((blocks - self.levels) * (norms / self.levels).unsqueeze(1)).view(-1)[: len(codes)]

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """(n-1) (bits N/8 + 4 N/block), for one bucket, whatever a gradient's `item_bytes` are."""
        elements = elements_of(elements)
        return (n - 1) * (packed_bytes(elements, self.bits) + SCALE_BYTES * -(-elements // self.block))
