"""Handles on operations under way: they record when an operation is complete and hold it back on an emulated link."""

import contextlib
import threading
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.futures import Future

from parallel_lab.runtime.rank import calls, nccl
from parallel_lab.runtime.rank.calls import Call
from parallel_lab.runtime.rank.clock import PreciseSleep
from parallel_lab.runtime.rank.liveness import Liveness
from parallel_lab.trace.record import Recorder


class _LabWork(dist.Work):
    """A handle that keeps the log and the trace: the base of both kinds."""

    def __init__(self, inner: dist.Work, call: Call, recorder: Recorder, index: int) -> None:
        super().__init__()
        self.inner, self.call, self.recorder, self.index = inner, call, recorder, index
        self.wait_s = 0.0

    @contextlib.contextmanager
    def _waiting(self):
        """Marks the rank as standing still for this operation, and times it."""
        if self.call.state != calls.DONE:
            self.call.state = calls.WAITING
        began_s = time.monotonic()
        try:
            yield
        finally:  # a wait that breaks off is over as well
            self.wait_s += time.monotonic() - began_s
            self.call.state = calls.DONE


def future_of(work: dist.Work, on_nccl: bool) -> tuple[Future, bool]:
    """The future that completes with the work of a backend's handle, and whether it is our own.

    gloo's reduce_scatter has none; a thread then waits for it. NCCL's completes too early.
    """
    if on_nccl:
        return nccl.ends.of(work), True
    try:
        return work.get_future(), False
    except RuntimeError:
        future: Future = Future()
        threading.Thread(target=_wait_for, args=(work, future), daemon=True, name="waiter").start()
        return future, True


def _wait_for(work: dist.Work, future: Future) -> None:
    try:
        work.wait()
        future.set_result(None)
    except Exception as error:
        future.set_exception(error)


class CollectiveWork(_LabWork):
    """The handle of a collective. DDP never calls `wait` but takes the future, so completion is recorded there too.

    Args:
        inner: the handle of the backend.
        call: in the log.
        recorder: of this rank.
        index: of the span.
        over: the future that completes when the collective is over, and whether it is the lab's own.
        after: runs once, when the result has arrived, and before anyone is told: it copies staged tensors back.
        outputs: the caller's tensors where others were staged for them; the future then gives these.
    """

    def __init__(
        self, inner, call, recorder, index, over: tuple[Future, bool], after: Callable[[], None], outputs=None
    ) -> None:
        super().__init__(inner, call, recorder, index)
        self.after, self.outputs = after, outputs
        self.over, self.ours = over
        self._once = threading.Lock()
        self._finished = False
        self.future = self.over.then(self._arrived)

    def wait(self, timeout=None) -> bool:
        """Blocks until the collective is over; raises what went wrong."""
        with self._waiting():
            if self.ours:
                self.over.wait()
            self.inner.wait()  # over already where the future is ours; on a GPU it tells the stream to wait as well
        self._finish()
        if self.outputs is not None:
            self.future.wait()  # another thread may be copying what arrived, or have failed to
        return True

    def is_completed(self) -> bool:
        """Whether the collective is over, on the emulated link too."""
        return self.future.done()

    def result(self) -> list[torch.Tensor]:
        """The tensors that the collective wrote."""
        return self.inner.result() if self.outputs is None else self.outputs

    def get_future(self) -> Future:
        """The future that completes with the collective, once what arrived is in its place."""
        return self.future

    def _arrived(self, over: Future) -> list[torch.Tensor] | None:
        try:
            value = over.value()
        finally:
            self._finish()
        return value if self.outputs is None else self.outputs

    def _finish(self) -> None:
        with self._once:
            if self._finished:
                if self.wait_s:
                    self.recorder.waited(self.index, self.wait_s)
                return
            self._finished = True
            self.call.state = calls.DONE
            self.recorder.complete(self.index, self.wait_s, end_s=getattr(self.over, "due_s", None))
            self.after()


_clock = PreciseSleep()


class MessageWork(_LabWork):
    """The handle of a send or a receive. gloo gives these no future: `wait` is where their end is seen.

    `due` is called once the message has arrived and returns the moment of the monotonic clock at which an emulated
    link would have delivered it (0 for no link). `liveness` know whether the other side has died.
    """

    def __init__(
        self, inner, call, recorder, index, after: Callable[[], None], due: Callable[[], float], liveness: Liveness
    ) -> None:
        super().__init__(inner, call, recorder, index)
        self.after, self.due, self.liveness = after, due, liveness
        self._finished = False

    def wait(self, timeout=None) -> bool:
        """Blocks until the message is delivered; raises what went wrong."""
        if self._finished:
            return True
        with self._waiting():
            due_s = self.liveness.wait(self.call.peer, self._arrival)
            _clock.until(due_s)
        self._finished = True
        self.after()
        # On an emulated link the end is known even when the rank looked only later.
        self.recorder.complete(self.index, self.wait_s, end_s=due_s or None)
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
