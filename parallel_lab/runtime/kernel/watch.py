"""The kernel's side of a launch: listens to the ranks until all have finished, one has failed, or time is up."""

import contextlib
import functools
import math
import os
import re
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parallel_lab.runtime import wire
from parallel_lab.runtime.kernel import forkserver
from parallel_lab.runtime.kernel.diagnose import State, crossed, hopeless
from parallel_lab.runtime.rank.calls import hidden, read_calls
from parallel_lab.runtime.rank.faults import Kill
from parallel_lab.runtime.rank.main import Failure, Job
from parallel_lab.trace import Trace

OUTPUT_BYTES = 1 << 22  # what is kept of one rank's printing
GRACE_S = 0.3  # how long after a failure other ranks may report failures of their own
LOST_GRACE_S = 2.0  # how long the cause of a lost connection may take to show
ANSWER_S = 1.0  # how long a rank may take to say where it is; on a busy machine it may stand still for a while
STACK_S = 0.5  # how long the stacks of those that do not answer may take to be written
STIR_S = 0.02  # what answering a pulse may take of the processor; less is standing still
PULSE_S = 0.5  # how often quiet ranks are asked whether they all wait
_FRAME = re.compile(r'File "(.*)", line (\d+) in ')


@dataclass
class Peer:
    """What the kernel knows of one rank. The rank's messages have the names of the fields that keep them."""

    sock: socket.socket
    output: socket.socket
    may_fail: bool  # whether the others can do without it
    kill: Kill | None  # the fault that is to kill it
    reader: wire.Reader = field(default_factory=wire.Reader)
    printed: bytearray = field(default_factory=bytearray)
    begun: int | None = None  # its process, once it can be asked
    done: dict[str, Any] | None = None  # its result and trace
    failed: Failure | None = None  # what it raised, or how it died
    state: dict[str, Any] | None = None  # its calls, and its line when it was asked; none if it died
    pulse: dict[str, Any] | None = None  # its answer to whether it waits
    trace: Trace | None = None  # what it had recorded, where it came to no end; none if it died
    progress: dict[str, Any] | None = None  # what its `progress(...)` last said
    ended: bool = False  # whether its process has

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.done is not None or self.failed is not None

    @property
    def fatal(self) -> bool:
        """Whether it failed or died, and the others cannot do without it."""
        return self.failed is not None and not self.may_fail


Activity = tuple[float, dict[int, tuple[int, float]]]  # a moment; by rank its calls, and its processor's seconds


class Watch:
    """Starts the ranks of a launch and listens to them.

    A context manager: leaving it ends every rank and closes every descriptor.
    """

    def __init__(self, job: Job, on_progress: Callable[..., None]) -> None:
        self.folder, self.on_progress, self.link = job.folder, on_progress, job.link
        self.began_s = time.monotonic()
        self.acted_s = self.began_s  # when a rank was last seen to have made a call
        self.activity: deque[Activity] = deque([(self.began_s, {})], maxlen=4)  # at the last pulses
        self.selector = selectors.DefaultSelector()
        self.peers: list[Peer] = []
        self.stuck = False  # whether the ranks were seen to wait for something that can never come
        self.states: dict[int, State] = {}  # where each rank was when last asked
        self.status, theirs = socket.socketpair()
        self.status_reader = wire.Reader()
        fds = [theirs.detach()]
        self.selector.register(self.status, selectors.EVENT_READ, self._on_status)
        kills = {fault.rank: fault for fault in job.faults if isinstance(fault, Kill)}
        for rank in range(job.ranks):
            (ours, talk), (read, write) = socket.socketpair(), socket.socketpair()
            self.peers.append(peer := Peer(ours, read, rank in job.may_fail, kills.get(rank)))
            self.selector.register(ours, selectors.EVENT_READ, functools.partial(self._on_message, peer, rank))
            self.selector.register(read, selectors.EVENT_READ, functools.partial(self._on_output, peer))
            fds += [talk.detach(), write.detach()]
        try:
            forkserver.get().fork(job.folder, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # all have ended, and the server has closed its side
            self.status.shutdown(socket.SHUT_WR)
        self._until_ended(5)
        self._until(lambda: self._open() == 0, time.monotonic() + 0.2)
        for key in list(self.selector.get_map().values()):
            self._close(key.fileobj)
        self.selector.close()

    @property
    def all_over(self) -> bool:
        """Whether nothing more is to be expected of any rank."""
        return all(peer.over for peer in self.peers)

    @property
    def fatal(self) -> bool:
        """Whether a rank failed or died that the others cannot do without."""
        return any(peer.fatal for peer in self.peers)

    @property
    def cause(self) -> bool:
        """Whether a rank failed of its own, and not for the loss of another."""
        return any(peer.fatal and peer.failed and not peer.failed.lost for peer in self.peers)

    def wait(self, timeout_s: float, still_s: float = math.inf, grace_s: float | None = None) -> bool:
        """Waits until all ranks are over, or one has failed and the others have had a moment to fail too.

        Returns:
            False when time is up before, when the ranks are stuck, or when they have stood still for `still_s`.
        """
        deadline = time.monotonic() + timeout_s
        still = 0  # pulses without a sign of life
        while not (self.all_over or self.fatal or self.stuck) and time.monotonic() < deadline:
            self._until(lambda: self.all_over or self.fatal, min(deadline, time.monotonic() + PULSE_S))
            before = self._work()
            self.stuck = not (self.all_over or self.fatal) and self._stuck(deadline)
            still = still + 1 if self._work() <= before + STIR_S else 0
            if still * PULSE_S >= still_s:
                break
        if self.fatal:
            self._until(lambda: self.all_over or self.cause, time.monotonic() + LOST_GRACE_S)
            self._until(lambda: self.all_over, time.monotonic() + (GRACE_S if grace_s is None else grace_s))
        return self.all_over or self.fatal

    def release(self) -> None:
        """Lets the ranks go, once all have returned: a rank that left early would break its peers' connections."""
        for peer in self.peers:
            self._tell(peer, "go")
        self._until_ended(2)

    def ask_states(self) -> dict[int, State]:
        """Where each rank is now."""
        self._ask("state", self._running(), time.monotonic() + ANSWER_S)
        stopped = {rank for rank, peer in enumerate(self.peers) if not (peer.over or peer.state) and _stopped(peer)}
        silent = [rank for rank, peer in enumerate(self.peers) if not (peer.over or peer.state or rank in stopped)]
        lines = self._native_lines(silent)
        self.states = {}
        for rank, peer in enumerate(self.peers):
            told = peer.state or {"calls": read_calls(os.path.join(self.folder, f"calls{rank}"))}
            told |= {"line": lines[rank]} if rank in lines else {}
            ended = peer.failed.words if peer.failed else ""
            finished, begun = peer.done is not None, peer.begun is not None
            state = State(**told, finished=finished, ended=ended, silent=rank in lines, begun=begun)
            state.stopped = rank in stopped
            self.states[rank] = state
        return self.states

    def traces(self) -> list[Trace | None]:
        """What each rank has recorded, also where the run came to no end; nothing of one that died or cannot answer."""
        self._ask("trace", [peer for peer in self._running() if peer.state], time.monotonic() + ANSWER_S)
        return [peer.done["trace"] if peer.done else peer.trace for peer in self.peers]

    def last_second(self) -> tuple[float, dict[int, tuple[int, float, int]]]:
        """What the ranks that still run did lately: in how many seconds; by rank calls, seconds of work, all calls."""
        self._feel(time.monotonic() + PULSE_S)
        now_s, now = self.activity[-1]
        before_s, before = self.activity[max(0, len(self.activity) - 3)]
        did = {}
        for rank, (calls, processor_s) in now.items():
            calls_then, processor_then_s = before.get(rank, (0, 0.0))
            did[rank] = (calls - calls_then, processor_s - processor_then_s, calls)
        return now_s - before_s, did

    @property
    def progress(self) -> dict[int, tuple[str, int, int | None]]:
        """What `progress(...)` last said on each rank: its label, how many are done, and of how many."""
        return {rank: tuple(peer.progress.values()) for rank, peer in enumerate(self.peers) if peer.progress}

    def _feel(self, deadline: float) -> dict[int, dict[str, Any]]:
        """Takes the pulse of the ranks that still run; returns those of them that wait."""
        self._ask("pulse", self._running(), deadline)
        pulses = {rank: peer.pulse for rank, peer in enumerate(self.peers) if peer.pulse and not peer.over}
        before = self.activity[-1][1]
        now = {rank: (pulse["calls"], pulse["processor_s"]) for rank, pulse in pulses.items()}
        if any(calls > before.get(rank, (0, 0.0))[0] for rank, (calls, _) in now.items()):
            self.acted_s = time.monotonic()
        self.activity.append((time.monotonic(), {**before, **now}))
        return {rank: pulse for rank, pulse in pulses.items() if pulse["waiting"]}

    def _running(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.over]

    def _ask(self, question: str, asked: list[Peer], deadline: float) -> None:
        """Asks ranks that still run; the answer of each lands in the attribute of that name of its `Peer`."""
        for peer in asked:
            setattr(peer, question, None)
            self._tell(peer, question)
        self._until(lambda: all(peer.over or getattr(peer, question) or _stopped(peer) for peer in asked), deadline)

    def _stuck(self, deadline: float) -> bool:
        """Whether a rank can never go on: it waits, twice in a row, for a call that nobody can make, or in another's.

        To ask costs the ranks time, so it is done where a rank is over, or where all the others wait.
        """
        before = self.activity[-1][1]
        waiting = self._feel(min(deadline, time.monotonic() + ANSWER_S))
        still = {rank for rank, pulse in waiting.items() if pulse["calls"] == before.get(rank, (0, 0.0))[0]}
        running = {rank for rank, peer in enumerate(self.peers) if not peer.over}
        if not still or (still < running and len(running) == len(self.peers)):
            return False
        states = self.ask_states()
        return bool(hopeless(states, running - still)) or (still == running and crossed(states))

    def _work(self) -> float:
        """What the ranks have done by their last pulse: calls, and seconds of their processors.

        It is not a number where a rank may be too busy to answer. One whose process is stopped does nothing.
        """
        silent = any(not (peer.over or peer.pulse or _stopped(peer)) for peer in self.peers)
        pulses = [peer.pulse for peer in self.peers if peer.pulse and not peer.over]
        return math.nan if silent else sum(pulse["calls"] + pulse["processor_s"] for pulse in pulses)

    def _native_lines(self, ranks: list[int]) -> dict[int, str]:
        """Where ranks are that cannot answer: faulthandler writes it from a signal handler, whatever holds Python.

        A rank that has not begun is left out, as the signal would only end it.
        """
        files = {}
        for rank in ranks:
            if pid := self.peers[rank].begun:
                files[rank] = os.path.join(self.folder, f"stack{rank}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
        deadline, sizes = time.monotonic() + STACK_S, []
        while files and time.monotonic() < deadline:  # until there is something in each and none grows any more
            self._until(lambda: False, time.monotonic() + 0.02)
            before, sizes = sizes, [os.path.getsize(file) for file in files.values()]
            if all(sizes) and sizes == before:
                break
        return {rank: _learner_line(file) for rank, file in files.items()}

    def _until(self, done: Callable[[], bool], deadline: float) -> None:
        """Hears the ranks until `done()`. What they have said by `deadline` is heard, however late it is by now."""
        late = False
        while not (done() or late) and self._open():
            left = deadline - time.monotonic()
            late = left <= 0
            for key, _ in self.selector.select(max(left, 0)):
                key.data()

    def _until_ended(self, patience_s: float) -> None:
        self._until(lambda: all(peer.ended for peer in self.peers), time.monotonic() + patience_s)

    def _open(self) -> int:
        return len(self.selector.get_map())

    def _tell(self, peer: Peer, word: str | int) -> None:
        with contextlib.suppress(OSError):
            wire.send(peer.sock, word)

    def _close(self, sock: Any) -> None:
        self.selector.unregister(sock)
        sock.close()

    def _read(self, sock: socket.socket) -> bytes:
        """What has come in on a socket, which is closed when the other side is gone."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            data = sock.recv(wire.PIECE_BYTES)
        if not data:
            self._close(sock)
        return data

    def _on_status(self) -> None:
        data = self._read(self.status)
        for rank, code in self.status_reader.feed(data):
            self._on_end(rank, code)
        if not data:  # the server is gone, and its ranks with it
            for rank, peer in enumerate(self.peers):
                if not peer.ended:
                    self._on_end(rank, -signal.SIGKILL)

    def _on_end(self, rank: int, code: int) -> None:
        peer = self.peers[rank]
        peer.ended = True
        if not peer.over:
            peer.failed, peer.state = _death(code, peer.kill), None
        if peer.failed and peer.may_fail:
            for other in self.peers:
                self._tell(other, rank)

    def _on_message(self, peer: Peer, rank: int) -> None:
        for what, value in peer.reader.feed(self._read(peer.sock)):
            if what == "progress":
                peer.progress = value
                self.on_progress(rank, **value)
            else:
                setattr(peer, what, value)
                if what == "failed" and peer.may_fail:
                    self._tell(peer, "go")  # its connections close, so that its peers see it gone

    def _on_output(self, peer: Peer) -> None:
        data = self._read(peer.output)
        if data and len(peer.printed) < OUTPUT_BYTES:
            peer.printed += data
            if len(peer.printed) >= OUTPUT_BYTES:
                peer.printed += b"\n... (the rest of this rank's output is left out)\n"


def _death(code: int, fault: Kill | None) -> Failure:
    """What a rank's exit code says, where the rank itself said nothing."""
    if code >= 0:
        return Failure("exit", f"exited with code {code} before it returned")
    name = signal.Signals(-code).name
    why = f", as {fault} says" if fault else ", which the system does when memory runs out"
    return Failure("killed", f"was killed by {name}" + (why if name == "SIGKILL" else ""))


def _stopped(peer: Peer) -> bool:
    """Whether the rank's process is stopped, as SIGSTOP, Ctrl-Z or a debugger do; not known without /proc."""
    with contextlib.suppress(OSError), open(f"/proc/{peer.begun}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    return False


def _learner_line(path: str) -> str:
    """The innermost frame that is the learner's, as `file:number`, in the stack that faulthandler wrote."""
    with open(path) as file:
        frames = _FRAME.findall(file.read())
    return next((f"{name}:{number}" for name, number in frames if not hidden(name)), "")
