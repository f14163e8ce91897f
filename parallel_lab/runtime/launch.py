"""`launch` runs a plain function on real processes and says what they did."""

import functools
import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from parallel_lab.network import Link, Nodes
from parallel_lab.runtime import torchrun, wire
from parallel_lab.runtime.device import choose_device
from parallel_lab.runtime.errors import LaunchError, Mismatch, Stopped
from parallel_lab.runtime.kernel import report
from parallel_lab.runtime.kernel.diagnose import State, mismatch
from parallel_lab.runtime.kernel.output import Bar, replay
from parallel_lab.runtime.kernel.server import MAX_RANKS
from parallel_lab.runtime.kernel.watch import Watch
from parallel_lab.runtime.rank.faults import Fault
from parallel_lab.runtime.rank.main import Job
from parallel_lab.trace import Trace


@dataclass(frozen=True)
class Run:
    """What a launch gave. `run[2]` is rank 2's result.

    Where a rank of `may_fail` ended early, its result is None and its spans are lost. One that dies at the very start
    may take those with it that still connect to it: then the launch fails.
    """

    results: list[Any]  # what the function returned, one per rank
    trace: Trace  # the spans and memory of all ranks
    output: list[str]  # what each rank printed
    failures: dict[int, str] = field(default_factory=dict)  # how each rank that may fail ended early
    link: Link | Nodes | None = None  # the emulated one

    def __getitem__(self, rank: int) -> Any:
        return self.results[rank]

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        sent = sum(s.sent_bytes for s in self.trace.spans)
        messages = sum(s.sent_messages for s in self.trace.spans)
        left_out = f"; {self.trace.left_out:,} spans were not kept" if self.trace.left_out else ""
        return f"<Run: {len(self)} ranks sent {sent:,} bytes in {messages:,} messages{left_out}>"


def launch(
    fn: Callable[..., Any],
    *args: Any,
    ranks: int = 4,
    link: Link | Nodes | None = None,
    faults: Sequence[Fault] = (),
    timeout: float = 60.0,
    still_s: float = math.inf,
    grace_s: float | None = None,
    device: str = "auto",
    seed: int = 0,
    memory_bytes: int | None = None,
    may_fail: Collection[int] = (),
    echo: bool = True,
    record: bool = True,
    **kwargs: Any,
) -> Run:
    """Runs `fn(*args, **kwargs)` on `ranks` processes that share a default process group, and waits for them.

    `fn` may be any function, lambda or closure, from a cell or a module; it is copied to each rank, and what it returns
    is copied back. Tensors travel in host memory: one on a GPU arrives on the CPU. Each rank has one thread and starts
    its random generators from `seed`. Under torchrun, where the ranks exist already, `fn` runs here and the run holds
    this rank's result alone.

    Args:
        fn: what each rank runs.
        *args: the arguments of `fn`.
        ranks: how many, 1 to 64.
        link: an emulated slower network; `Nodes` has one link inside nodes and one between them.
        faults: `Kill`, `Delay`, `Drop`: what goes wrong.
        timeout: seconds until ranks that have not finished are ended; infinity for no limit.
        still_s: seconds until ranks are ended that neither compute nor call anything; a busy machine is no matter.
        grace_s: how long after a failure other ranks may report failures of their own; 0.3 by default. Who
            starts them again at once wants 0.
        device: `auto`, `cpu` or `cuda`.
        seed: where the random generators of each rank start.
        memory_bytes: the most that each rank may allocate beyond what it starts with (Linux), and on its GPU.
        may_fail: ranks that may raise or die while the others go on, as machines do; at least one rank must return.
        echo: print what the ranks printed, in rank order, when they have ended.
        record: whether the run has a trace. A recorder keeps the first 50,000 spans of a rank; `run.trace.left_out`
            says how many came after.
        **kwargs: the keyword arguments of `fn`.

    Raises:
        RankFailed: a rank raised, exited or was killed.
        Deadlock: a rank could never go on, or time was up and nothing went on any more.
        TimedOut: time was up while the ranks still went on.
        Stopped: you pressed Stop; a KeyboardInterrupt.
        Mismatch: different collectives met.
        ValueError: an argument makes no sense.
        TypeError: `fn` is no function, or something cannot be copied to the ranks.
    """
    if torchrun.active():
        return torchrun.run_here(Run, functools.partial(fn, *args, **kwargs), seed, timeout, record)
    _validate(fn, ranks, timeout, still_s, seed, may_fail)
    bar, prefix = Bar(), f"parallel-lab-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        call, where = _pickle(fn, args, kwargs), choose_device(ranks, device, bool(may_fail))
        limits = (memory_bytes, timeout, folder, tuple(may_fail), record)
        job = Job(call, ranks, seed, link, tuple(faults), where, *limits)
        with open(os.path.join(folder, "job"), "wb") as file:
            pickle.dump(job, file)
        try:
            with Watch(job, bar) as watch:
                try:
                    error = _error(watch, timeout, still_s, grace_s)
                except KeyboardInterrupt:
                    error = report.stopped(watch)
                trace = _trace(watch.traces())
        except KeyboardInterrupt:
            raise Stopped("stopped by you before the ranks could be asked where they stood") from None
    bar.close()
    output = [peer.printed.decode(errors="replace") for peer in watch.peers]
    if echo:
        replay(output)
    if error:
        error.output, error.progress, error.trace = tuple(output), watch.progress, trace.cut_short()
        raise error
    return _run(watch, output, trace)


def _validate(fn: Any, ranks: Any, timeout: Any, still_s: Any, seed: Any, may_fail: Any) -> None:
    if not callable(fn):
        raise TypeError(f"launch needs a function, got {type(fn).__name__}; write launch(fn, x), not launch(fn(x))")
    if not isinstance(ranks, int) or not 1 <= ranks <= MAX_RANKS:
        raise ValueError(f"ranks={ranks!r}: expected a whole number from 1 to {MAX_RANKS}")
    for name, limit in (("timeout", timeout), ("still_s", still_s)):
        if not isinstance(limit, Real) or not float(limit) > 0:
            raise ValueError(f"{name}={limit!r}: expected seconds above 0, or math.inf")
    if not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
        raise ValueError(f"seed={seed!r}: expected a whole number from 0 to 2**32 - 1")
    if not isinstance(may_fail, Collection) or not set(may_fail) <= set(range(ranks)):
        raise ValueError(f"may_fail={may_fail!r}: expected ranks from 0 to {ranks - 1}")


def _pickle(fn: Callable, args: tuple, kwargs: dict) -> bytes:
    try:
        return wire.dumps((fn, args, kwargs))
    except Exception as error:
        name = getattr(fn, "__name__", repr(fn))
        text = f"{name} and its arguments must be copied to the ranks, and something in them cannot be: {error}"
        raise TypeError(f"{text}. Open files, locks, sockets and generators inside the function instead.") from None


def _error(watch: Watch, timeout_s: float, still_s: float, grace_s: float | None) -> LaunchError | Stopped | None:
    """Waits for the ranks and says what went wrong."""
    if not watch.wait(timeout_s, still_s, grace_s):
        return report.hang(watch, min(timeout_s, still_s), standing=time.monotonic() - watch.began_s < timeout_s)
    if watch.fatal or not any(peer.done for peer in watch.peers):
        return report.failure(watch)
    watch.release()
    states = {rank: State(**peer.state) for rank, peer in enumerate(watch.peers) if peer.done and peer.state}
    if wrong := mismatch(states):
        return Mismatch(f"All ranks returned, but {report.places(wrong)}. The results cannot be trusted.")
    return None


def _trace(told: Sequence[Trace | None]) -> Trace:
    """What all ranks recorded, one trace each, in one."""
    traces = [trace for trace in told if trace]
    place = functools.cache(report.place)
    spans = tuple(s._replace(line=place(s.line)) if s.line else s for trace in traces for s in trace.spans)
    samples = tuple(sample for trace in traces for sample in trace.memory)
    return Trace(len(told), spans, samples, left_out=sum(trace.left_out for trace in traces))


def _run(watch: Watch, output: list[str], trace: Trace) -> Run:
    results = [pickle.loads(peer.done["result"]) if peer.done else None for peer in watch.peers]
    failures = {r: peer.failed.words for r, peer in enumerate(watch.peers) if peer.failed}
    return Run(results, trace, output, failures, watch.link)
