"""Several tensors of one dtype as one vector, so that they are one message."""

from collections.abc import Sequence

import torch
from torch import Tensor


def end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    """A new vector of all elements, (elements,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def put_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Writes what `end_to_end` laid out into `tensors`, in place."""
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
