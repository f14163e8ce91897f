"""Where the messages of a reduction land before they are added: buffers that are kept between calls.

A CPU allocator hands large blocks back to the system when they are freed, and the next call pays a page fault for each
4 KiB again: a tenth of an all-reduce of 4 MiB. CUDA's allocator keeps its blocks, so there nothing is kept here.
"""

import threading
from collections import defaultdict

import torch
from torch import Tensor

KEPT_BYTES = 32 * 2**20  # between calls, per thread


class Scratch(threading.local):
    """Buffers of this thread that are free; `take` one, and `give` it back."""

    def __init__(self) -> None:
        self.free: defaultdict[tuple[int, torch.dtype], list[Tensor]] = defaultdict(list)
        self.kept_bytes = 0

    def take(self, like: Tensor) -> Tensor:
        """An uninitialized tensor with the size, dtype and device of the flat tensor `like`."""
        fitting = self.free[like.numel(), like.dtype] if like.is_cpu else None
        if not fitting:
            return torch.empty_like(like)
        self.kept_bytes -= like.nbytes
        return fitting.pop()

    def give(self, tensor: Tensor) -> None:
        """Keeps what `take` handed out; when there is too much of it, the rest is let go first."""
        if not tensor.is_cpu or tensor.nbytes > KEPT_BYTES:
            return
        if self.kept_bytes + tensor.nbytes > KEPT_BYTES:
            self.free.clear()
            self.kept_bytes = 0
        self.free[tensor.numel(), tensor.dtype].append(tensor)
        self.kept_bytes += tensor.nbytes
