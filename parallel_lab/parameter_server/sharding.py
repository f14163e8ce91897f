"""Who keeps what: the parameters, laid end to end, cut into one stretch for each server.

Li et al. 2014 give each server a range of keys (section 4.1, consistent hashing); here the ranges are even by bytes, so
that no server's link carries more than another's. A big tensor is split; the sizes differ by one element at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from parallel_lab.model.data import shard_sizes


def bounds(total: int, servers: int) -> list[slice]:
    """Each server's stretch of a vector of `total` elements; the last are empty where servers outnumber elements.

    ValueError if total is negative or servers is below 1.
    """
    cuts = [0, *accumulate(shard_sizes(total, servers))]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def shards(sizes: Sequence[int], servers: int) -> list[list[slice]]:
    """For each server the slices of the flat vector that it keeps, one for each tensor it has a piece of.

    `sizes` are the tensors' elements. `shards([6, 3], 2)` is `[[slice(0, 5)], [slice(5, 6), slice(6, 9)]]`: the first
    tensor is split. ValueError if a size is negative or servers is below 1.
    """
    if min(sizes, default=0) < 0:
        raise ValueError(f"sizes {list(sizes)}: a tensor has no negative number of elements")
    tensors = [slice(start, stop) for start, stop in pairwise([0, *accumulate(sizes)])]
    found = []
    for mine in bounds(sum(sizes), servers):
        pieces = [slice(max(mine.start, t.start), min(mine.stop, t.stop)) for t in tensors]
        found.append([piece for piece in pieces if piece.start < piece.stop])
    return found


@dataclass(frozen=True)
class Layout:
    """What is cut, and how: equal layouts mean that ranks, or a snapshot and a server, speak of the same vector.

    Attributes:
        names: of the trainable parameters, in the model's order; tied ones once.
        shapes: their shapes.
        dtype: their common dtype, as text (`torch.float32`).
        servers: how many stretches.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    servers: int

    @property
    def sizes(self) -> list[int]:
        """Elements of each parameter."""
        return [_product(shape) for shape in self.shapes]

    @property
    def bounds(self) -> list[slice]:
        """Each server's stretch of the flat vector."""
        return bounds(sum(self.sizes), self.servers)

    def pieces(self, shard: int) -> list[tuple[int, slice]]:
        """For each parameter that server `shard` has a piece of: its index, and the slice of its own elements."""
        starts = [0, *accumulate(self.sizes)]
        found = []
        for piece in shards(self.sizes, self.servers)[shard]:
            index = max(i for i in range(len(self.names)) if starts[i] <= piece.start and self.sizes[i])
            found.append((index, slice(piece.start - starts[index], piece.stop - starts[index])))
        return found

    def difference(self, other: "Layout") -> str:
        """The first thing in which `other` differs, in words; empty if they are equal."""
        if self.dtype != other.dtype:
            return f"dtype {other.dtype}, not {self.dtype}"
        for mine, theirs in zip(self._lines(), other._lines(), strict=False):
            if mine != theirs:
                return f"{theirs}, not {mine}"
        if len(self.names) != len(other.names):
            return f"{len(other.names)} trainable parameters, not {len(self.names)}"
        return f"{other.servers} shards, not {self.servers}" if self.servers != other.servers else ""

    def _lines(self) -> list[str]:
        return [f"{name} of shape {shape}" for name, shape in zip(self.names, self.shapes, strict=True)]


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
