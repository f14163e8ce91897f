"""Handles on operations under way: they record when an operation is complete and hold it back on an emulated link."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch.futures import Future

from parallel_lab.runtime.rank import gpu
from parallel_lab.runtime.rank.calls import DONE, WAITING, Call
from parallel_lab.runtime.rank.waiting import Liveness, OwnFuture, clock, on_a_thread
from parallel_lab.trace.record import Recorder


class _LabWork(dist.Work):
    """A handle that keeps the log and the trace: the base of both kinds.

    `after` runs once, when what was asked for has arrived, and before anyone is told: it copies staged tensors back.
    """

    def __init__(
        self, inner: dist.Work, call: Call, recorder: Recorder, index: int, after: Callable[[], object]
    ) -> None:
        super().__init__()
        self.inner, self.call, self.recorder, self.index, self.after = inner, call, recorder, index, after
        self.wait_s = 0.0
        self._once = threading.Lock()
        self._finished = False

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Marks the rank as standing still for this operation, and times it."""
        if self.call.state != DONE:
            self.call.state = WAITING
        began_s = time.monotonic()
        try:
            yield
        finally:  # a wait that breaks off is over as well
            self.wait_s += time.monotonic() - began_s
            self.call.state = DONE

    def _finish(self, end_s: float | None) -> None:
        """Writes down the end, which on an emulated link is known even when the rank looked only later."""
        with self._once:
            if not self._finished:
                self._finished = True
                self.call.state = DONE
                self.recorder.complete(self.index, self.wait_s, end_s=end_s)
                self.after()
            elif self.wait_s:
                self.recorder.waited(self.index, self.wait_s)


class Waited(OwnFuture):
    """The future of a handle that a thread waits for, and nobody else may.

    gloo's reduce_scatter copies its result into the caller's tensor at every wait, over what was done to it since.
    """


def future_of(work: dist.Work, on_nccl: bool) -> Future:
    """The future that completes with the work of a backend's handle.

    gloo's reduce_scatter has none; a thread then waits for it. NCCL's completes too early.
    """
    if on_nccl:
        return gpu.end_of(work)
    try:
        return work.get_future()
    except RuntimeError:
        return on_a_thread(Waited(), lambda: work.wait() and None)


class CollectiveWork(_LabWork):
    """The handle of a collective. DDP never calls `wait` but takes the future, so completion is recorded there too.

    `over` completes when the collective is over. Where other tensors were staged for the caller's, `outputs` are the
    caller's, and the future gives these.
    """

    def __init__(
        self, inner, call, recorder, index, over: Future, after, outputs: list[torch.Tensor] | None = None
    ) -> None:
        super().__init__(inner, call, recorder, index, after)
        self.over, self.outputs = over, outputs
        self.waited = isinstance(getattr(over, "payload", over), Waited)
        self.future = over.then(self._arrived)

    def wait(self, timeout=None) -> bool:
        """Blocks until the collective is over; raises what went wrong."""
        self.call.asked = True
        with self._waiting():
            if isinstance(self.over, OwnFuture):
                self.over.wait()
            if not self.waited:
                self.inner.wait()  # where the lab has waited, it tells the GPU's stream to wait as well
        self._over()
        if self.outputs is not None:
            self.future.wait()  # another thread may be copying what arrived, or have failed to
        return True

    def is_completed(self) -> bool:
        """Whether the collective is over, on the emulated link too."""
        self.call.asked = True
        return self.future.done()

    def result(self) -> list[torch.Tensor]:
        """The tensors that the collective wrote."""
        return self.inner.result() if self.outputs is None else self.outputs

    def get_future(self) -> Future:
        """The future that completes with the collective, once what arrived is in its place."""
        self.call.asked = True
        return self.future

    def _arrived(self, over: Future) -> list[torch.Tensor] | None:
        try:
            value = over.value()
        finally:
            self._over()
        return value if self.outputs is None else self.outputs

    def _over(self) -> None:
        self._finish(getattr(self.over, "due_s", None))


class MessageWork(_LabWork):
    """The handle of a send or a receive. gloo gives these no future: `wait` is where their end is seen.

    `due` is called once the message has arrived and returns the moment of the monotonic clock at which an emulated
    link would have delivered it (0 for no link). `liveness` knows whether the other side has died.
    """

    def __init__(self, inner, call, recorder, index, after, due: Callable[[], float], liveness: Liveness) -> None:
        super().__init__(inner, call, recorder, index, after)
        self.due, self.liveness = due, liveness

    def wait(self, timeout=None) -> bool:
        """Blocks until the message is delivered; raises what went wrong."""
        if not self._finished:
            with self._waiting():
                due_s = self.liveness.wait(self.call.peer, self._arrival)
                clock.until(due_s)
            self._finish(due_s or None)
        return True

    def _arrival(self) -> float:
        self.inner.wait()
        return self.due()

    def is_completed(self) -> bool:
        """Whether the message is here, or on its emulated link."""
        return self.inner.is_completed()

    def _source_rank(self) -> int:
        return self.inner._source_rank()

    source_rank = _source_rank
