"""A bucket of Zero2: parameters in one flat vector, this rank's share of it, and the gradients on their way."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel import flat
from parallel_lab.data_parallel.flat import Layout


class Bucket:
    """Parameters whose gradients travel together, and this rank's share of them.

    Attributes:
        part: its number, in the order in which the backward pass is expected to fill them.
        flat: the parameters (numel,), which are views of it.
        mine: this rank's share (share,), a view of `flat`; its `.grad` is the share of the mean gradient.
        master: what the optimizer steps: `mine`, or a copy of it in `master_dtype`.
        buffer: the gradients under way (numel,); None where there are none.
    """

    def __init__(
        self,
        part: int,
        named: list[tuple[str, nn.Parameter]],
        group: dist.ProcessGroup,
        master_dtype: torch.dtype | None,
    ) -> None:
        self.part = part
        self.parameters = [p for _, p in named]
        self.layout = Layout.of([(name, p.shape) for name, p in named], group.size())
        self.flat = flat.move_in(self.parameters, self.layout)
        self.place = self.layout.place(group.rank())
        broadcast_tensors([self.flat], group)
        self.mine = nn.Parameter(self.flat[self.place])
        copied = master_dtype is not None
        self.master = nn.Parameter(self.mine.detach().to(master_dtype, copy=True)) if copied else self.mine
        self.buffer: Tensor | None = None
        self.arrived: set[int] = set()

    def take(self, index: int) -> None:
        """Moves the gradient of parameter `index` into the buffer and frees it."""
        if self.buffer is None:
            self.buffer = self.flat.new_zeros(self.layout.numel)  # zeros for parameters that are not used
        gradient = self.parameters[index].grad
        if gradient is not None:
            slot = self.layout.slots[index]
            self.buffer[slot.start : slot.stop].view(slot.shape).copy_(gradient)
            self.parameters[index].grad = None
        self.arrived.add(index)

    @property
    def full(self) -> bool:
        """Whether every parameter's gradient is there."""
        return len(self.arrived) == len(self.parameters)


def fill(model: nn.Module, bucket_bytes: int) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """The trained parameters in buckets, last registered first: that is nearly the order of the backward pass."""
    bucket: list[tuple[str, nn.Parameter]] = []
    for name, parameter in reversed([(n, p) for n, p in model.named_parameters() if p.requires_grad]):
        if bucket and (bucket[0][1].dtype, bucket[0][1].device) != (parameter.dtype, parameter.device):
            yield bucket
            bucket = []
        bucket.append((name, parameter))
        if sum(p.nbytes for _, p in bucket) >= bucket_bytes:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
