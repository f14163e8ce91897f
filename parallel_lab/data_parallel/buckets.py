"""Buckets: the gradients of several parameters in one flat buffer, so that they travel in one message.

A message costs a latency whatever its size, so many small gradients are sent together; but a bucket can leave only
when its last gradient is there, so a bucket that holds everything cannot overlap with the backward pass. Li et al.
2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", section 3.2.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Named = tuple[str, nn.Parameter]

PIECE_BYTES = 2**20  # gradients are taken in pieces that a core's cache holds, so that the second look costs little


class Bucket:
    """Parameters of one dtype and device, and one flat buffer of which each of their gradients is a view.

    Attributes:
        index: the place in the order in which buckets are sent.
        names, parameters: what is in it, in the order of the buffer.
        flat: (elements,), zeros at first.
        views: for each parameter its part of `flat`, in the parameter's shape.
        starts: where each part begins, int64 (parameters,).
        waiting: how many gradients of this backward pass are still missing.
        seen, used: for each parameter whether it was taken in this backward pass, and whether it had a gradient.
        sums: for each parameter the sums of the pieces of this rank's own gradient, no dims each. NaN or infinity
            anywhere shows in a sum, and a sum is the cheapest look at every element.
    """

    def __init__(self, index: int, named: Sequence[Named]) -> None:
        self.index = index
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        sizes = [parameter.numel() for parameter in self.parameters]
        first = self.parameters[0]
        self.flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        parts = self.flat.split(sizes)
        self.views = [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]
        self._piece = PIECE_BYTES // self.flat.element_size()
        self._pieces = [part.split(self._piece) for part in parts]
        ends = torch.tensor(sizes).cumsum(0)
        self.starts = (ends - torch.tensor(sizes)).to(first.device)
        self.reset()

    def __repr__(self) -> str:
        return f"<Bucket {self.index}: {self.bytes:,} bytes of {', '.join(self.names)}>"

    @property
    def bytes(self) -> int:
        """The size of the flat buffer."""
        return self.flat.nbytes

    def reset(self) -> None:
        """Makes ready for a backward pass: every gradient is missing."""
        self.waiting = len(self.parameters)
        self.seen = [False] * self.waiting
        self.used = [False] * self.waiting
        self.sums: list[list[Tensor]] = [[] for _ in self.parameters]

    def take(self, place: int, scale: float, look: bool) -> None:
        """Moves the gradient of the parameter at `place`, times `scale`, into the buffer; `.grad` is then a view of it.

        A parameter without a gradient counts as zeros, and its `.grad` stays None. `look` takes the sums.
        """
        parameter, view = self.parameters[place], self.views[place]
        self.seen[place] = True
        self.waiting -= 1
        if parameter.grad is None:
            view.zero_()
            return
        for own, piece in zip(parameter.grad.reshape(-1).split(self._piece), self._pieces[place], strict=True):
            torch.mul(own, scale, out=piece)
            if look:
                self.sums[place].append(total(piece))
        if parameter.grad is not view:
            parameter.grad = view  # what autograd made is freed here
        self.used[place] = True

    def take_rest(self, scale: float, look: bool) -> None:
        """Takes whatever has not come in this backward pass: parameters that the loss did not depend on."""
        for place, seen in enumerate(self.seen):
            if not seen:
                self.take(place, scale, look)

    def poison(self) -> None:
        """Makes the first element NaN if a gradient has NaN or infinity: one element then tells every rank.

        0 times a finite sum changes nothing, 0 times any other is NaN; so no value has to be read from a GPU here.
        """
        if own := [own for sums in self.sums for own in sums]:
            self.flat[0] += torch.stack(own).sum() * 0

    def empty(self) -> None:
        """Fills the buffer with zeros, as the share of a rank that has no batch."""
        self.reset()
        self.waiting = 0
        self.flat.zero_()


def total(values: Tensor) -> Tensor:
    """The sum of all elements, no dims; in float32 for float16, whose range ends at 65504."""
    return values.sum(dtype=torch.float32) if values.dtype == torch.float16 else values.sum()


def partition(named: Sequence[Named], bucket_bytes: int) -> list[list[Named]]:
    """Cuts `named` into buckets, keeping the order; a bucket is closed once it holds `bucket_bytes` or more.

    Dtypes and devices do not mix. Buckets stand in the order of their last members, because that is the order in
    which they fill up.
    """
    open_: dict[tuple, list[int]] = {}
    closed: list[list[int]] = []
    for place, (_, parameter) in enumerate(named):
        key = parameter.dtype, parameter.device
        members = open_.setdefault(key, [])
        members.append(place)
        if sum(named[i][1].nbytes for i in members) >= bucket_bytes:
            closed.append(open_.pop(key))
    closed += open_.values()
    return [[named[i] for i in members] for members in sorted(closed, key=lambda members: members[-1])]


def make_buckets(named: Sequence[Named], bucket_bytes: int) -> list[Bucket]:
    """The buckets of `named`, parameters in the order in which their gradients are expected."""
    return [Bucket(index, members) for index, members in enumerate(partition(named, bucket_bytes))]
