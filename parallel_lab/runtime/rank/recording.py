"""The recorder of a rank: what `trace.record`, which knows no torch, learns from autograd and from the GPU."""

import time

import torch

from parallel_lab import compat
from parallel_lab.runtime.device import rank_device
from parallel_lab.trace.record import Recorder, install


def start_recorder(rank: int, began_s: float, enabled: bool) -> None:
    """Gives this process its recorder."""
    keeper = Recorder(rank, began_s, enabled)
    keeper.stopwatch = Stopwatch() if rank_device().type == "cuda" else None
    keeper.in_backward = lambda: compat.backward_pass() >= 0
    install(keeper)


class Stopwatch:
    """Moments in the work of a GPU: what is queued begins and ends later than the line that queues it.

    A moment is an event in the stream. It is turned into seconds of the monotonic clock when the work is over, from
    one event whose moment was seen on that clock. A rank that has not used its GPU has no moments.
    """

    def __init__(self) -> None:
        self._zero: tuple[torch.cuda.Event, float] | None = None

    def mark(self) -> torch.cuda.Event | None:
        """The moment at which the GPU comes to this point of the stream."""
        if not torch.cuda.is_initialized():
            return None
        if self._zero is None:
            zero = self._event()
            zero.synchronize()
            self._zero = zero, time.monotonic()
        return self._event()

    def seconds(self, mark: torch.cuda.Event) -> float:
        """When that was, on the monotonic clock; waits until the GPU has come to it."""
        assert self._zero
        zero, zero_s = self._zero
        mark.synchronize()
        return zero_s + zero.elapsed_time(mark) / 1000

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
