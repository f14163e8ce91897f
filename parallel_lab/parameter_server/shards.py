"""Who keeps what: the parameters, laid end to end, are cut into one stretch for each server.

Li et al. 2014 give each server a range of keys (section 4.3, consistent hashing). Here the ranges are even by bytes, so
that no server's link carries more than another's. A big tensor is split, and sizes differ by one element at most.

A tensor that fits into one shard *lives* there: it is a view of the message in which the shard travels. A tensor that
is split, or that is not on the CPU, lives elsewhere and is copied.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from parallel_lab.model.data import shard_sizes


class Piece(NamedTuple):
    """A stretch of one tensor in one shard."""

    tensor: int  # the index of the tensor
    of_tensor: slice  # of the tensor's own elements
    of_shard: slice  # where they lie in the shard's vector


def bounds(total: int, servers: int) -> list[slice]:
    """Each server's stretch of a vector of `total` elements; the last are empty where servers outnumber elements."""
    return [slice(start, stop) for start, stop in pairwise([0, *accumulate(shard_sizes(total, servers))])]


def pieces(sizes: Sequence[int], servers: int) -> list[list[Piece]]:
    """For each server, the pieces of the tensors that it keeps; see `shards`."""
    starts = [0, *accumulate(sizes)]
    found: list[list[Piece]] = []
    for mine in bounds(sum(sizes), servers):
        found.append([])
        for index, (first, end) in enumerate(pairwise(starts)):
            start, stop = max(first, mine.start), min(end, mine.stop)
            if start < stop:
                inside = slice(start - first, stop - first)
                found[-1].append(Piece(index, inside, slice(start - mine.start, stop - mine.start)))
    return found


def shards(sizes: Sequence[int], servers: int) -> list[list[slice]]:
    """For each server, its slices of the flat vector, one a tensor: of sizes 6, 3 on two, 0:5 and then 5:6, 6:9."""
    starts = [0, *accumulate(sizes)]
    return [
        [slice(starts[p.tensor] + p.of_tensor.start, starts[p.tensor] + p.of_tensor.stop) for p in kept]
        for kept in pieces(sizes, servers)
    ]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name: tied ones once, frozen ones not at all."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("the model has no trainable parameter: nothing to serve")
    if len(dtypes := {str(p.dtype) for p in found.values()}) > 1:
        raise TypeError(f"parameters of {' and '.join(sorted(dtypes))}: a parameter server keeps one dtype")
    return found


def flat(model: nn.Module) -> Tensor:
    """A copy of the trainable parameters end to end, (elements,), on the CPU."""
    return parameters_to_vector(trainable(model).values()).detach().cpu()


class Homes:
    """Where tensors live whose elements travel in the vectors of shards: `tensors` has one for each of `like`.

    Of `like`, only shape, dtype and device count; `vectors` has the vector of each shard, (elements of the shard,).
    """

    def __init__(self, like: Sequence[Tensor], vectors: Sequence[Tensor]) -> None:
        self.tensors = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in like]
        self._copied: list[list[tuple[Tensor, Tensor]]] = [[] for _ in vectors]
        for shard, kept in enumerate(pieces([t.numel() for t in like], len(vectors))):
            for piece in kept:
                stretch, whole = vectors[shard][piece.of_shard], like[piece.tensor]
                if len(stretch) == whole.numel() and whole.device.type == "cpu":
                    self.tensors[piece.tensor] = stretch.view(whole.shape)
                else:
                    self._copied[shard].append((self.tensors[piece.tensor].view(-1)[piece.of_tensor], stretch))

    def arrived(self, shard: int) -> None:
        """Copies what has come in with `shard` to the tensors that do not live there."""
        for tensor, stretch in self._copied[shard]:
            tensor.copy_(stretch)

    def leaving(self, shard: int) -> None:
        """Copies the tensors that do not live in `shard` to it, before it is sent."""
        for tensor, stretch in self._copied[shard]:
            stretch.copy_(tensor)
