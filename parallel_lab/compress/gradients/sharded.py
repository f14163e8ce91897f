"""Quantized collectives for sharded training: weights arrive in 8 bits, gradients leave in 4.

Wang et al. 2023, "ZeRO++: Extremely Efficient Collective Communication for Giant Model Training": qwZ and qgZ. Zero3
gathers weights twice in a step and reduce-scatters gradients once. Here

    qwZ   a rank quantizes its shard, in blocks with a scale each, before the all-gather, and everybody dequantizes. The
          shards that the optimizer steps stay exact; all ranks compute with the same rounded weights
    qgZ   a reduce-scatter would round at each of its n - 1 sums. Instead an all-to-all brings to each rank what the
          others have for it, in 4 bits; it dequantizes that and adds it up in full precision: rounded once

A scale is the largest absolute value of its block, and codes lie evenly and symmetrically below it. `TwoHops` does qgZ
in two hops, as the paper does between nodes: inside its node each rank adds up what is for its own place in all nodes,
and these sums, rounded once more, go between nodes. The third part, hpZ, is `Zero3(reshard_after_forward=...)` with the
ranks of a node; what that gathers again among these is then rounded again.

    sent per rank and step, N elements, some bits each, blocks of so many, `local` ranks in a node
    a gather of weights    (n-1)/n (bits N/8 + 4 N/block) bytes: with 8 bits half of bfloat16's
    gradients              (n-1)/n (bits N/8 + 4 N/block) bytes: with 4 bits a quarter of bfloat16's
    of which leave a node  (n - local)/n (bits N/8 + 4 N/block) bytes; in two hops (n/local - 1)/n of that bracket,
                           `local` times less
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from parallel_lab.agree.arguments import whole
from parallel_lab.compress.gradients.wire import SCALE_BYTES, WIDTHS, joined, pack, packed_bytes, parted, unpack
from parallel_lab.runtime.gather import all_gather as plain_gather
from parallel_lab.runtime.gather import reduce_scatter as plain_scatter


class Quantized:
    """What Zero3 communicates with: `Zero3(model, exchange=Quantized())`. The same settings on every rank.

    Args:
        weight_bits: of a weight in an all-gather: 8, 4 or 2; None sends weights as they are.
        gradient_bits: of a gradient, likewise.
        block: how many elements share a scale.

    Raises:
        ValueError: codes of so many bits are not known, or `block` is below 1.
    """

    def __init__(self, *, weight_bits: int | None = 8, gradient_bits: int | None = 4, block: int = 256) -> None:
        for bits in (weight_bits, gradient_bits):
            if bits is not None and bits not in WIDTHS[1:]:
                raise ValueError(f"{bits} bits: expected one of {WIDTHS[1:]}, or None for what is sent as it is")
        self.weight_bits, self.gradient_bits, self.block = weight_bits, gradient_bits, whole("block", block)

    def all_gather(self, flat: Tensor, shard: Tensor, group: dist.ProcessGroup) -> Any:
        """Starts to fill `flat` (n * size,) with the shards (size,) of all ranks, rounded to `weight_bits`."""
        if self.weight_bits is None or not shard.is_floating_point():
            return plain_gather(flat, shard, group)
        message = self.encode(shard, self.weight_bits)
        every = message.new_empty(group.size(), len(message))
        work = plain_gather(every.view(-1), message, group)
        return Then(work, lambda: flat.copy_(self.decode(every, self.weight_bits or 0, len(shard)).reshape(-1)))

    def reduce_scatter(self, shard: Tensor, flat: Tensor, group: dist.ProcessGroup) -> Any:
        """Starts to sum `flat` (n * size,), rounded to `gradient_bits`, and to put this rank's part into `shard`."""
        if self.gradient_bits is None or not flat.is_floating_point():
            return plain_scatter(shard, flat, group)
        rows = self.encode(flat.view(group.size(), -1), self.gradient_bits)  # for each rank
        arrived = torch.empty_like(rows)
        work = dist.all_to_all_single(arrived, rows, group=group, async_op=True)
        return Then(work, lambda: shard.copy_(self.decode(arrived, self.gradient_bits or 0, len(shard)).sum(0)))

    def encode(self, vector: Tensor, bits: int) -> Tensor:
        """(..., size) as bytes: a scale for each block, and the codes."""
        size, top = vector.shape[-1], 2 ** (bits - 1) - 1
        blocks = pad(vector.float(), (0, -size % self.block)).unflatten(-1, (-1, self.block))
        scale = blocks.abs().amax(-1) / top
        exact = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)
        codes = (exact.round() + top).to(torch.uint8).flatten(-2)[..., :size]
        return joined(scale, pack(codes, bits))

    def decode(self, message: Tensor, bits: int, size: int) -> Tensor:
        """What the bytes stand for, float32 (..., size)."""
        blocks, top = -(-size // self.block), 2 ** (bits - 1) - 1
        scale, data = parted(message, (torch.float32, blocks), (torch.uint8, packed_bytes(size, bits)))
        codes = pad(unpack(data, bits, size), (0, -size % self.block)).unflatten(-1, (-1, self.block))
        return ((codes.float() - top) * scale.unsqueeze(-1)).flatten(-2)[..., :size]

    def sent_bytes(self, elements: int, n: int, item_bytes: int = 4, *, gradients: bool = False) -> float:
        """The bytes that a rank sends for a unit of `elements`, padded as Zero3 pads: a gather, or its gradients."""
        bits, size = self.gradient_bits if gradients else self.weight_bits, -(-elements // n)
        if bits is None:
            return (n - 1) * size * item_bytes
        return (n - 1) * (packed_bytes(size, bits) + SCALE_BYTES * -(-size // self.block))


class TwoHops(Quantized):
    """The same, with gradients in two hops.

    Args:
        inside: the ranks of this rank's node, neighbors all. Of `make_mesh(node=..., gpu=...)` it is the second axis.
        between: the ranks of this rank's place in all nodes: the first axis.
        settings: as in `Quantized`.

    Raises:
        ValueError: in backward, where the two groups are not those of the ranks that share the model.
    """

    def __init__(self, inside: dist.ProcessGroup, between: dist.ProcessGroup, **settings: Any) -> None:
        super().__init__(**settings)
        self.inside, self.between = inside, between

    def reduce_scatter(self, shard: Tensor, flat: Tensor, group: dist.ProcessGroup) -> Any:
        """As in `Quantized`; the second hop begins where somebody waits for the first."""
        bits, local, nodes, n = self.gradient_bits, self.inside.size(), self.between.size(), group.size()
        if bits is None or not flat.is_floating_point():
            return super().reduce_scatter(shard, flat, group)
        if local * nodes != n:
            text = f"hops among {local} ranks and {nodes} nodes, and {n} ranks share the model"
            raise ValueError(f"rank {group.rank()}: {text}: make both groups of these ranks")
        # What is for one place, in all nodes, goes to the rank of that place in this node.
        rows = self.encode(flat.view(nodes, local, -1).transpose(0, 1), bits).contiguous()  # (local, nodes, bytes)
        arrived = torch.empty_like(rows)
        work = dist.all_to_all_single(arrived, rows, group=self.inside, async_op=True)

        def second_hop() -> None:
            rows = self.encode(self.decode(arrived, bits, len(shard)).sum(0), bits)  # (nodes, bytes)
            came = torch.empty_like(rows)
            dist.all_to_all_single(came, rows, group=self.between)
            shard.copy_(self.decode(came, bits, len(shard)).sum(0))

        return Then(work, second_hop)

    def sent_bytes(self, elements: int, n: int, item_bytes: int = 4, *, gradients: bool = False) -> float:
        """As in `Quantized`; of gradients (local - 1) n/local rows inside the node, and n/local - 1 between nodes."""
        sent = super().sent_bytes(elements, n, item_bytes, gradients=gradients)
        if not gradients or self.gradient_bits is None:
            return sent
        local, nodes = self.inside.size(), self.between.size()
        return sent / (n - 1) * ((local - 1) * nodes + nodes - 1) if n > 1 else 0


class Then:
    """A handle: when the bytes are there, `then` makes numbers of them."""

    def __init__(self, work: Any, then: Callable[[], object]) -> None:
        self.work, self.then = work, then

    @torch.no_grad()
    def wait(self) -> None:
        """Blocks until the numbers are there."""
        self.work.wait()
        self.then()
