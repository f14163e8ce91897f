"""What a GPU needs of a rank: its own moments in the trace, and NCCL behind the door.

NCCL carries the collectives of tensors on a GPU. Everything else goes through gloo: tensors on the CPU, barriers and
objects, which NCCL cannot carry, and messages. NCCL runs the messages of a pair one after another, so two ranks that
send to each other would stand still; through host memory they pass, and are slower.

NCCL calls a collective complete when its kernels are queued. A trace that said so would show no communication, and a
rank that hangs would wait for nothing. So the handle of the lab is complete when the GPU has done the work, and
`wait()` blocks the rank until then, as it does with gloo.

Unproved on hardware, as no machine with several GPUs was at hand; tests have stand-ins alone:
- several ranks under NCCL, in one group and in sub-groups;
- the moments of ends under NCCL, with and without an emulated link;
- torchrun on several hosts with GPUs;
- PyTorch's DDP, FSDP2 and pipelining over NCCL through the door;
- spans of computing, whose ends are events of the GPU, beside a profiler's.
"""

import functools
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.rank.waiting import OwnFuture, Turns
from parallel_lab.trace.record import Recorder, install

_ends = Turns()


def nccl_group(store: Any, rank: int, ranks: list[int], timeout: timedelta) -> Any:
    """NCCL's group of the global `ranks`."""
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    options.global_ranks_in_group = ranks
    return dist.ProcessGroupNCCL(store, rank, len(ranks), options)


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """A stream that waits for collectives, so that those of the learner do not."""
    return torch.cuda.Stream()


def end_of(work: dist.Work) -> OwnFuture:
    """The future that completes when the GPU has carried out what a handle of NCCL stands for."""
    with torch.cuda.stream(_side_stream()):
        work.wait()  # on NCCL this makes the stream wait, and not the rank
        event = torch.cuda.Event()
        event.record()

    def carried_out() -> Any:
        event.synchronize()
        return work.result()

    return _ends.add(OwnFuture(), carried_out)


def start_recorder(rank: int, began_s: float, enabled: bool) -> None:
    """Gives this process its recorder, and that what it cannot know without torch."""
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
