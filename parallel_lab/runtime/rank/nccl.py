"""NCCL behind the door: what it carries, and when it is done.

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

import queue
import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.futures import Future


def group(store: Any, rank: int, ranks: list[int], timeout: timedelta) -> Any:
    """NCCL's group of the global `ranks`."""
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    options.global_ranks_in_group = ranks
    return dist.ProcessGroupNCCL(store, rank, len(ranks), options)


class Ends:
    """Futures that complete when a GPU has carried out what is queued, in the order of issue."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.stream: torch.cuda.Stream | None = None

    def of(self, work: dist.Work) -> Future:
        """The future of a handle of NCCL."""
        with self._lock:
            self.stream = self.stream or torch.cuda.Stream()
            with torch.cuda.stream(self.stream):
                work.wait()  # on NCCL this makes the stream wait, and not the rank
                event = torch.cuda.Event()
                event.record()
            future: Future = Future()
            self._queue.put((event, work, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="waiter")
                self._thread.start()
        return future

    def _run(self) -> None:
        while True:
            event, work, future = self._queue.get()
            try:
                event.synchronize()
                future.set_result(work.result())
            except Exception as error:
                future.set_exception(error)


ends = Ends()
