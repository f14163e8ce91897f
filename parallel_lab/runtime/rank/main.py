"""What runs in a rank: join the group, run the learner's function, tell the kernel how it went."""

import contextlib
import faulthandler
import os
import pickle
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import numpy
import torch
import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.network import Link, Nodes
from parallel_lab.runtime import wire
from parallel_lab.runtime.device import Device
from parallel_lab.runtime.rank import backend, flight
from parallel_lab.runtime.rank.calls import CallLog, learner_line
from parallel_lab.runtime.rank.emulate import Emulators
from parallel_lab.runtime.rank.faults import Fault, Injector
from parallel_lab.runtime.rank.gpu import start_recorder
from parallel_lab.runtime.rank.waiting import Liveness
from parallel_lab.trace.record import recorder

# What gloo says when the other side of a connection is gone: what failed is another rank, not this one's.
_LOST = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "Read error", "connectFullMesh")
PROGRESS_EVERY_S = 0.05
LONGEST_S = 1e8  # three years: no timedelta holds infinity


@dataclass
class Failure:
    """How a rank ended before its function returned: an exception as plain data, or a death that the kernel saw.

    The kernel adds the source lines, which only it has.
    """

    type: str  # the exception's class, `exit` or `killed`
    text: str
    frames: Sequence[tuple[str, int, str]] = ()  # outermost first: file, line, function; none of a death
    cause: "Failure | None" = None
    caused: bool = False  # whether the code says `raise ... from`, and did not only fail while it handled the cause
    members: Sequence["Failure"] = ()  # of a group of exceptions
    lost: bool = False  # whether the other side of a connection has gone
    at_s: float = field(default_factory=time.monotonic)

    @property
    def words(self) -> str:
        """How the rank ended, in one line."""
        if self.lost:
            return "lost its connection to a rank that had ended"
        return f"raised {self.text.splitlines()[0]}" if self.frames else self.text

    @classmethod
    def of(cls, error: BaseException, told: tuple[BaseException, ...] = ()) -> "Failure":
        """The failure that an exception is. Causes may go round: those in `told`, to which it led, are left out."""
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        told = (*told, error)
        kind, text = type(error).__name__, "".join(traceback.format_exception_only(error)).strip()
        if isinstance(error, SystemExit):
            kind, text = "exit", f"called sys.exit({error.code!r})"
        return cls(
            kind,
            text,
            [(frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)],
            cls.of(cause, told) if cause and cause not in told else None,
            error.__cause__ is not None,
            [cls.of(each, told) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else (),
            isinstance(error, RuntimeError) and any(sign in text for sign in _LOST),
        )


@dataclass
class Job:
    """What the kernel leaves in the launch's folder for its ranks."""

    payload: bytes  # (fn, args, kwargs), pickled by value
    ranks: int
    seed: int
    link: Link | Nodes | None
    faults: tuple[Fault, ...]
    device: Device
    memory_bytes: int | None
    timeout_s: float
    folder: str
    may_fail: tuple[int, ...]
    record: bool
    began_s: float = field(default_factory=time.monotonic)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: str = field(default_factory=os.getcwd)
    path: list[str] = field(default_factory=lambda: list(sys.path))


def main(rank: int, talk: int, output: int, folder: str) -> NoReturn:
    """The life of a rank, from the fork to its end. Never returns into the server."""
    os.setsid()
    _take_over_output(output)
    kernel = Kernel(socket.socket(fileno=talk))
    try:
        with open(os.path.join(folder, "job"), "rb") as file:
            job = pickle.load(file)
        faulthandler.register(signal.SIGUSR1, open(os.path.join(folder, f"stack{rank}"), "w"), all_threads=False)  # noqa: SIM115
        kernel.tell("begun", os.getpid())
        _prepare(rank, job)
        threading.Thread(target=kernel.listen, daemon=True, name="kernel").start()
        done = kernel.run(rank, job)
        kernel.tell_state()
        kernel.tell("done", done)
    except BaseException as error:
        kernel.tell_state()
        kernel.tell_trace()
        kernel.tell("failed", Failure.of(error))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    kernel.released.wait()
    os._exit(0)


class Kernel:
    """This rank's line to the kernel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.told_s = 0.0

    def tell(self, what: str, value: Any) -> None:
        """Sends one message; the kernel may be gone already."""
        with self.lock, contextlib.suppress(OSError):
            wire.send(self.sock, (what, value))

    def tell_state(self) -> None:
        """Says what this rank has asked of its groups, and where its main thread is."""
        log = backend.door.calls
        flight.dump()
        self.tell("state", {"calls": list(log.calls), "made": dict(log.made), "line": learner_line()})

    def tell_trace(self) -> None:
        """Says what was recorded so far, where the run comes to no end."""
        self.tell("trace", recorder().so_far(int(os.environ.get("WORLD_SIZE", "1"))))

    def listen(self) -> None:
        """Answers the kernel until it lets this rank go, or is gone itself. A number is that of a rank that died."""
        with contextlib.suppress(OSError):
            for question in wire.messages(self.sock):
                if question == "go":
                    return self.released.set()
                if question == "state":
                    self.tell_state()
                elif question == "trace":
                    self.tell_trace()
                elif isinstance(question, int):
                    backend.door.liveness.note(question)
                else:
                    log, spent_s = backend.door.calls, time.process_time()
                    self.tell("pulse", {"waiting": log.waiting(), "calls": log.total, "processor_s": spent_s})
        os._exit(1)

    def report_progress(self, label: str, done: int, total: int | None) -> None:
        """Moves the bar under the cell, at most 20 times a second."""
        now = time.monotonic()
        if now - self.told_s > PROGRESS_EVERY_S or done == total:
            self.told_s = now
            self.tell("progress", {"label": label, "done": done, "total": total})

    def run(self, rank: int, job: Job) -> dict[str, Any]:
        """Runs the function; returns its result, pickled, and what was recorded."""
        function, args, kwargs = pickle.loads(job.payload)
        recorder().report = self.report_progress
        store = compat.FileStore(os.path.join(job.folder, "store"), job.ranks)
        # The kernel ends a hang; a backend that gave up first would hide who waits for whom.
        patience = timedelta(seconds=min(job.timeout_s, LONGEST_S) + 60)
        dist.init_process_group("lab", store=store, rank=rank, world_size=job.ranks, timeout=patience)
        result = function(*args, **kwargs)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # an error of the last kernel shows here, or never
        try:
            return {"result": wire.dumps(result), "trace": recorder().trace(job.ranks)}
        except Exception as error:
            raise TypeError(f"what the function returned cannot be sent to the notebook: {error}") from None


def _take_over_output(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115


def _prepare(rank: int, job: Job) -> None:
    os.environ.clear()
    device = job.device.of(rank)
    # Programs, and PyTorch's device mesh, take the GPU of this number.
    local = rank if device.index is None else device.index
    os.environ.update(job.environment, RANK=str(rank), WORLD_SIZE=str(job.ranks), LOCAL_RANK=str(local))
    os.environ["PARALLEL_LAB_DEVICE"] = str(device)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo0" if sys.platform == "darwin" else "lo")
    os.chdir(job.directory)
    sys.path[:] = job.path
    sys.breakpointhook = _no_debugger
    torch.set_num_threads(1)
    compat.allow_old_names()
    compat.let_the_group_refuse_oneself()
    random.seed(job.seed)
    numpy.random.seed(job.seed)
    torch.manual_seed(job.seed)
    if job.device.kind == "cuda":
        _take_gpu(device, at_once=job.device.backend == "nccl" or job.memory_bytes is not None)
    if job.memory_bytes is not None:
        limit_memory(job.memory_bytes)
    start_recorder(rank, job.began_s, job.record)
    log = CallLog(os.path.join(job.folder, f"calls{rank}"))
    emulator = Emulators(job.link) if job.link else None
    faults, liveness = Injector(rank, job.faults), Liveness(job.may_fail)
    backend.door = backend.Door(job.device.backend, "127.0.0.1", log, faults, emulator, liveness)


def _take_gpu(device: torch.device, at_once: bool) -> None:
    """Makes `device` the rank's own. A context takes a second: it is made with the first tensor, unless `at_once`."""
    if at_once:
        torch.cuda.set_device(device)
    else:
        compat.when_cuda_begins(lambda: torch.cuda.set_device(device))


def limit_memory(limit_bytes: int) -> None:
    """Lets this process allocate at most `limit_bytes` more than it holds now, and as much on its GPU.

    Linux counts private memory (RLIMIT_DATA), so that what the fork server shares with its ranks is free, and so is
    what the driver of the GPU has taken by now. macOS does not enforce it.
    """
    if torch.cuda.is_initialized():
        whole_bytes = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / whole_bytes))
    if sys.platform.startswith("linux"):
        with open("/proc/self/status") as status:
            held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held + limit_bytes, hard))


def _no_debugger(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("breakpoint(): a rank has no keyboard; print what you want to see, or call the function here")
