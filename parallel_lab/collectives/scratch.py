"""Where the messages of a reduction land before they are added: buffers that are kept between calls.

A CPU allocator hands large blocks back to the system when they are freed, and the next call pays a page fault for each
4 KiB again: a tenth of an all-reduce of 4 MiB. CUDA's allocator keeps its blocks, so there nothing is kept here.
"""

import threading

import torch
from torch import Tensor

KEPT_BYTES = 32 * 2**20  # between calls, per thread


class Scratch(threading.local):
    """Buffers of this thread that are free; `take` one, and `give` it back."""

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def take(self, like: Tensor) -> Tensor:
        """An uninitialised tensor with the shape, dtype and device of the flat tensor `like`."""
        if like.device.type != "cpu":
            return torch.empty_like(like)
        size_bytes = like.numel() * like.element_size()
        fitting = [i for i, buffer in enumerate(self.free) if buffer.numel() >= size_bytes]
        buffer = (
            self.free.pop(fitting[-1]) if fitting else torch.empty(-(-size_bytes // 4096) * 4096, dtype=torch.uint8)
        )
        return buffer[:size_bytes].view(like.dtype)

    def give(self, tensor: Tensor) -> None:
        """Takes back what `take` handed out, unless enough is kept already."""
        if tensor.device.type != "cpu":
            return
        base = tensor._base
        kept_bytes = sum(buffer.numel() for buffer in self.free)
        if base is not None and kept_bytes + base.numel() <= KEPT_BYTES:
            self.free.append(base)
