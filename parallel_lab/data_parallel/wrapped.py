"""What `DDP`, `Zero2` and `Zero3` have as modules that stand around another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn

from parallel_lab.runtime.group import member


class NotCopied:
    """It holds a process group and what is this rank's alone, so it refuses to be copied or pickled."""

    instead: str  # what to copy or save in its place

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(self.instead)


class Wrapped(NotCopied, nn.Module):
    """A module that stands around another, `module`, and shares the work with the ranks of `group`, by default all."""

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None) -> None:
        super().__init__()
        self.module = model
        self.group = member(group)
        self.sync = True

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Passes inside, forward and backward, add their gradients up on this rank, whole, and send nothing.

        The first forward and backward outside sends the sum. Divide each of m microbatch losses by m.
        """
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before

    def expect_backward(self, *, averages: bool) -> None:
        """The next backward pass, of whichever forward, averages, or adds up on this rank as in `no_sync`.

        A pipeline says so, whose forwards are long over when gradients are complete.
        """
        self.sync = averages

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model on this rank's share of the batch."""
        return self.module(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model: names have no prefix, so it loads without the wrapper too."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model. Every rank must load the same."""
        return self.module.load_state_dict(*args, **kwargs)
