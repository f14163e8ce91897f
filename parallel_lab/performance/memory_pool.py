"""An allocator with blocks, as CUDA's caching allocator in PyTorch: why memory runs out while enough of it is free.

Asking the driver for memory is slow and waits for the GPU, so a pool asks for large *segments* and hands out *blocks*
of them. A block that is freed goes back to the pool, is merged with free neighbors of its segment, and serves the next
request that fits. What is free is not one piece: a request fails if no free block is as large and the device has no
room for a new segment, however much is free in all. That is fragmentation.

The sizes are those of `c10/cuda/CUDACachingAllocator.cpp` (PyTorch 2):

    a request is rounded up to a multiple of 512 bytes
    up to 1 MiB       from segments of 2 MiB; what is left over is split off from 512 bytes on
    below 10 MiB      from segments of 20 MiB; what is left over is split off above 1 MiB
    from 10 MiB on    from a segment of its own, rounded up to 2 MiB
    of the free blocks of its kind that fit, the smallest one is taken

Before a request fails, the pool gives whole free segments back and tries again. With *expandable segments* there is one
segment of each kind, a long range of addresses to which memory is mapped page by page, of 2 or 20 MiB: what grows
continues where the last block ended, and free pages can be taken from their place and mapped elsewhere. Streams, other
pools and the driver's own memory are left out.
"""

from dataclasses import dataclass, field
from typing import Literal

from parallel_lab.trace.units import format_bytes

MIB = 2**20
ROUND, SMALL, SMALL_SEGMENT = 512, 1 * MIB, 2 * MIB
LARGE, LARGE_SEGMENT, ROUND_LARGE = 10 * MIB, 20 * MIB, 2 * MIB

Kind = Literal["small", "large"]


class PoolFull(MemoryError):
    """A request that the pool has no room for."""


@dataclass(eq=False)
class Block:
    """A stretch of a segment, free or in use."""

    segment: "Segment"
    start: int  # from the beginning of the segment
    size: int
    free: bool = True
    mapped: bool = True  # False of a hole in the addresses, whose pages were given back


@dataclass(eq=False)
class Segment:
    """Memory that the pool has from the device, as blocks without gaps; of an expandable one, holes do not count."""

    kind: Kind
    size: int
    blocks: list[Block] = field(default_factory=list)


def rounded(request_bytes: int) -> int:
    """What a request takes at least."""
    return -(-max(request_bytes, 1) // ROUND) * ROUND


def kind_of(size: int) -> Kind:
    """Of which segments a block of `size` is."""
    return "small" if size <= SMALL else "large"


def segment_size(size: int) -> int:
    """How large a new segment for a block of `size` is."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < LARGE else -(-size // ROUND_LARGE) * ROUND_LARGE


class Pool:
    """The memory of one device.

    Args:
        capacity_bytes: what the device has.
        expandable: whether there is one growing segment of each kind.
    """

    def __init__(self, capacity_bytes: int, *, expandable: bool = False) -> None:
        self.capacity_bytes, self.expandable = capacity_bytes, expandable
        self.segments: list[Segment] = []

    @property
    def reserved_bytes(self) -> int:
        """What the pool has from the device."""
        return sum(segment.size for segment in self.segments)

    @property
    def allocated_bytes(self) -> int:
        """What is handed out, rounded as requests are."""
        return sum(b.size for segment in self.segments for b in segment.blocks if not b.free)

    @property
    def free_bytes(self) -> int:
        """What is not handed out, in the pool and on the device."""
        return self.capacity_bytes - self.allocated_bytes

    def allocate(self, request_bytes: int) -> Block:
        """A block of at least `request_bytes`.

        Raises:
            PoolFull: there is none, and no room for a segment.
        """
        size = rounded(request_bytes)
        block = self._best_fit(size) or self._grow(size)
        if block is None:
            self._give_back()
            block = self._best_fit(size) or self._grow(size)
        if block is None:
            raise PoolFull(
                f"a request of {format_bytes(request_bytes)} fails: {format_bytes(self.free_bytes)} of"
                f" {format_bytes(self.capacity_bytes)} are free, the largest free block has"
                f" {format_bytes(self.largest_free_block())}, and the device has"
                f" {format_bytes(self.capacity_bytes - self.reserved_bytes)} left for a new segment"
            )
        self._split(block, size)
        block.free = False
        return block

    def free(self, block: Block) -> None:
        """Gives `block` back to the pool, where it becomes one with free neighbors.

        Raises:
            ValueError: it is free already.
        """
        if block.free:
            raise ValueError("this block is free already: it was given back twice")
        block.free = True
        blocks = block.segment.blocks
        place = blocks.index(block)
        first = place - 1 if place and _usable(blocks[place - 1]) else place
        last = place + 2 if place + 1 < len(blocks) and _usable(blocks[place + 1]) else place + 1
        blocks[first:last] = [Block(block.segment, blocks[first].start, sum(b.size for b in blocks[first:last]))]

    def largest_free_block(self) -> int:
        """Bytes of the largest free block."""
        return max((b.size for segment in self.segments for b in segment.blocks if _usable(b)), default=0)

    def largest_request(self) -> int:
        """The largest request that would be served now, in bytes; `free_bytes` if nothing is fragmented."""
        low, high = 0, self.free_bytes // ROUND
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._copy()._serves(middle * ROUND) else (low, middle - 1)
        return low * ROUND

    @property
    def fragmentation(self) -> float:
        """The share of the free memory that the largest request cannot have, from 0 to 1."""
        return 1 - self.largest_request() / self.free_bytes if self.free_bytes else 0.0

    def _best_fit(self, size: int) -> Block | None:
        """The smallest free block that is large enough, the first of those of equal size."""
        kind = kind_of(size)
        blocks = [b for s in self.segments if s.kind == kind for b in s.blocks if _usable(b) and b.size >= size]
        return min(blocks, key=lambda b: b.size, default=None)

    def _grow(self, size: int) -> Block | None:
        """A free block in new memory from the device; None where that has no room."""
        kind, room = kind_of(size), self.capacity_bytes - self.reserved_bytes
        grown = next((s for s in self.segments if s.kind == kind), None) if self.expandable else None
        tail = grown.blocks[-1] if grown and _usable(grown.blocks[-1]) else None
        page = SMALL_SEGMENT if kind == "small" else LARGE_SEGMENT
        missing = size - (tail.size if tail else 0)
        new = -(-missing // page) * page if self.expandable else segment_size(size)
        if new > room:
            return None
        if grown is None:
            grown = Segment(kind, 0)
            self.segments.append(grown)
        if tail is None:
            last = grown.blocks[-1] if grown.blocks else None
            tail = Block(grown, last.start + last.size if last else 0, 0)
            grown.blocks.append(tail)
        tail.size += new
        grown.size += new
        return tail

    def _split(self, block: Block, size: int) -> None:
        """Cuts off what `block` has beyond `size`, if that is worth a block of its own."""
        left = block.size - size
        if left >= ROUND and (block.segment.kind == "small" or left > SMALL):
            blocks = block.segment.blocks
            blocks.insert(blocks.index(block) + 1, Block(block.segment, block.start + size, left))
            block.size = size

    def _give_back(self) -> None:
        """Returns free segments to the device; of an expandable one the pages that lie in free blocks."""
        if not self.expandable:
            self.segments = [s for s in self.segments if not (len(s.blocks) == 1 and s.blocks[0].free)]
            return
        for segment in self.segments:
            segment.blocks = [part for block in segment.blocks for part in _without_pages(block)]
            segment.size = sum(block.size for block in segment.blocks if block.mapped)

    def _serves(self, size: int) -> bool:
        try:
            self.allocate(size)
        except PoolFull:
            return False
        return True

    def _copy(self) -> "Pool":
        other = Pool(self.capacity_bytes, expandable=self.expandable)
        for segment in self.segments:
            copy = Segment(segment.kind, segment.size)
            copy.blocks = [Block(copy, b.start, b.size, b.free, b.mapped) for b in segment.blocks]
            other.segments.append(copy)
        return other


def _usable(block: Block) -> bool:
    return block.free and block.mapped


def _without_pages(block: Block) -> list[Block]:
    """`block`; where it is free, what its whole pages leave of it, and a hole in their place."""
    page = SMALL_SEGMENT if block.segment.kind == "small" else LARGE_SEGMENT
    end = block.start + block.size
    first, last = -(-block.start // page) * page, end // page * page
    if not _usable(block) or first >= last:
        return [block]
    edges = ((block.start, first, True), (first, last, False), (last, end, True))
    return [Block(block.segment, a, b - a, True, mapped) for a, b, mapped in edges if a < b]
