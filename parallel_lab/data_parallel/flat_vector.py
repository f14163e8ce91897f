"""Parameters laid end to end in one flat vector, and cut evenly among the ranks: what Zero1 and Zero2 are built on.

Cutting each parameter on its own would leave remainders everywhere; one vector of all of them is cut once. Its end is
padded with zeros so that it divides by n: at most n - 1 elements a vector, which every collective carries too. Rank r
owns the shard of elements [r * shard_size, (r + 1) * shard_size). A parameter may lie on two ranks or more; the part
of it that this rank owns is a `Piece`, and the pieces are what the optimizer steps.

Only optimizers that treat each element by itself (SGD, momentum, Adam, AdamW, RMSprop, Adagrad, ...) give the same
result on pieces as on whole parameters. One that looks at a whole tensor, such as LAMB, Adafactor or Muon, does not.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.same_model import partition as partition
from parallel_lab.runtime.gather import all_gather
from parallel_lab.trace import recorder

Named = tuple[str, nn.Parameter]


def owned(sizes: Sequence[int], n: int, rank: int) -> Iterator[tuple[int, int, int, int]]:
    """What `rank` of `n` owns of parameters of `sizes` elements that lie end to end.

    Yields:
        The number of a parameter; its elements [start, stop) that the rank owns; where these begin in the rank's shard.
    """
    shard_size = -(-sum(sizes) // n)
    begin, end = rank * shard_size, (rank + 1) * shard_size
    for index, (size, last) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        first = last - size
        start, stop = max(first, begin), min(last, end)
        if start < stop:
            yield index, start - first, stop - first, start - begin


class Piece:
    """The part of one parameter that this rank owns: its elements [start, stop), flattened."""

    def __init__(
        self, named: Named, index: int, start: int, stop: int, at: int, master_dtype: torch.dtype | None
    ) -> None:
        self.name, self.parameter = named
        self.index, self.start, self.stop = index, start, stop  # `index`: its number in the flat vector
        self.at = slice(at, at + stop - start)  # where the piece stands in the rank's shard
        # The weights (stop - start,), a view of the parameter; its `.grad` is the piece's mean gradient.
        self.view = nn.Parameter(self.parameter.detach().view(-1)[start:stop])
        self.shard = self.view  # what the optimizer steps: `view`, or a master copy of it
        if master_dtype is not None:
            self.shard = nn.Parameter(self.view.detach().to(master_dtype, copy=True))

    def gradient(self) -> Tensor | None:
        """The piece's part of the whole parameter's gradient, a view."""
        whole = self.parameter.grad
        return None if whole is None else whole.reshape(-1)[self.start : self.stop]


class FlatVector:
    """Parameters of one dtype and device, as views of one vector that is cut among the ranks of `group`."""

    def __init__(self, named: Sequence[Named], group: dist.ProcessGroup, master_dtype: torch.dtype | None) -> None:
        self.group = group
        self.names, self.parameters = zip(*named, strict=True)
        sizes = [parameter.numel() for parameter in self.parameters]
        self._starts = [0, *accumulate(sizes)]
        shard_size = -(-sum(sizes) // group.size())
        self.data = self.parameters[0].detach().new_zeros(group.size() * shard_size)  # all of them, zeros as padding
        for index, parameter in enumerate(self.parameters):
            parameter.data = self.view(self.data, index).copy_(parameter.detach())
        self.shard = self.data.view(group.size(), -1)[group.rank()]  # what this rank owns, a view (shard_size,)
        mine = owned(sizes, group.size(), group.rank())
        self.pieces = [Piece(named[i], i, start, stop, at, master_dtype) for i, start, stop, at in mine]

    def view(self, vector: Tensor, index: int) -> Tensor:
        """The part of `vector` (n * shard_size,) that belongs to parameter `index`, in the parameter's shape."""
        return vector[self._starts[index] : self._starts[index + 1]].view(self.parameters[index].shape)

    def all_gather(self) -> dist.Work:
        """Starts to fill `data` with the shards of all ranks. Sends (n-1)/n of it per rank."""
        return all_gather(self.data, self.shard, self.group)


class Bucket(FlatVector):
    """A flat vector whose gradients travel together, and the gradients that are under way."""

    trained: frozenset[int]  # the numbers of the parameters that get a gradient in this backward pass
    missing: set[int]  # of those whose gradient has not come yet
    buffer: Tensor | None = None  # the gradients (n * shard_size,); None where there are none

    def begin(self) -> None:
        """A backward pass begins: all gradients are missing."""
        self.trained = frozenset(i for i, p in enumerate(self.parameters) if p.requires_grad or p.grad is not None)
        self.missing = set(self.trained)

    def gradients(self) -> Tensor:
        """The buffer (n * shard_size,), made of zeros if there is none: they stand for what is not used."""
        if self.buffer is None:
            self.buffer = torch.zeros_like(self.data)
        return self.buffer

    def take(self, index: int, move: bool) -> None:
        """The gradient of parameter `index` is there. With `move`, 1/n of it goes into the buffer, and it is freed."""
        self.missing.discard(index)
        parameter = self.parameters[index]
        if move and parameter.grad is not None:  # dividing before the sum keeps a sum of float16 in range
            torch.mul(parameter.grad, 1 / self.group.size(), out=self.view(self.gradients(), index))
            parameter.grad = None


def sample(buckets: Iterable[Bucket]) -> None:
    """Notes the bytes of the gradients under way, for the picture of memory over time."""
    if recorder().enabled:
        recorder().sample(sum(each.buffer.nbytes for each in buckets if each.buffer is not None), "buckets")


def step_shards(optimizer: torch.optim.Optimizer, pieces: Iterable[Piece]) -> None:
    """Steps the shards, once, by the gradients of their views; master copies then hand their values to the views."""
    masters = [piece for piece in pieces if piece.shard is not piece.view]
    for piece in masters:
        piece.shard.grad = None if piece.view.grad is None else piece.view.grad.to(piece.shard.dtype)
    optimizer.step()
    for piece in masters:
        piece.shard.grad = None
        piece.view.copy_(piece.shard)
