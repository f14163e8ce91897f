"""The kernel's side of a launch: listens to the ranks until all have finished, one has failed, or time is up."""

import contextlib
import functools
import json
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection
from typing import Any

from parallel_lab.runtime import wire
from parallel_lab.runtime.kernel.diagnose import State, hopeless
from parallel_lab.runtime.kernel.forkserver import ForkServer
from parallel_lab.runtime.kernel.peer import Peer, describe_end, learner_frame, read_stack
from parallel_lab.runtime.rank.calls import read_calls

OUTPUT_BYTES = 1 << 22  # what is kept of one rank's printing
GRACE_S = 0.3  # how long after a failure other ranks may report failures of their own
LOST_GRACE_S = 2.0  # how long the cause of a lost connection may take to show
ANSWER_S = 1.0  # how long a rank may take to say where it is; on a busy machine it may stand still for a while
STACK_S = 0.5  # how long the stacks of those that do not answer may take to be written
STIR_S = 0.02  # what answering a pulse may take of the processor; less is standing still
PULSE_S = 0.5  # how often quiet ranks are asked whether they all wait


class Watch:
    """Listens to the ranks of one launch. A context manager: leaving it ends every rank and closes every descriptor.

    `may_fail` are the ranks whose end does not end the others.
    """

    def __init__(
        self, server: ForkServer, folder: str, ranks: int, on_progress, may_fail: Collection[int] = ()
    ) -> None:
        self.server, self.folder, self.on_progress = server, folder, on_progress
        self.selector = selectors.DefaultSelector()
        self.peers: list[Peer] = []
        self.stuck = False  # whether the ranks were seen to wait for something that can never come
        self.states: dict[int, State] = {}  # where each rank was when last asked
        self.pulse: list[int] = []
        self.status_data = b""
        self.status_fd, theirs = os.pipe()
        fds = [theirs]
        self.selector.register(self.status_fd, selectors.EVENT_READ, self._on_status)
        for rank in range(ranks):
            ours, talk = socket.socketpair()
            read, write = os.pipe()
            self.peers.append(peer := Peer(ours, read, may_fail=rank in may_fail))
            self.selector.register(ours, selectors.EVENT_READ, functools.partial(self._on_message, peer, rank))
            self.selector.register(read, selectors.EVENT_READ, functools.partial(self._on_output, peer))
            fds += [talk.detach(), write]
        try:
            self.number = server.fork(folder, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill(self.number)
        self._until(lambda: self.ended, time.monotonic() + 5)
        self._until(lambda: self._open() == 0, time.monotonic() + 0.2)
        for key in list(self.selector.get_map().values()):
            self._close(key.fileobj)
        self.selector.close()

    @property
    def ended(self) -> bool:
        """Whether every rank has ended."""
        return all(peer.code is not None for peer in self.peers)

    def wait(self, timeout_s: float, still_s: float = math.inf) -> bool:
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
            self._until(lambda: self.all_over, time.monotonic() + GRACE_S)
        return self.all_over or self.fatal

    def release(self) -> None:
        """Lets the ranks go, once all have returned: a rank that left early would break its peers' connections."""
        for peer in self.peers:
            self._tell(peer, "go")
        self._until(lambda: self.ended, time.monotonic() + 2)

    def ask_states(self) -> dict[int, State]:
        """Where each rank is now."""
        self._ask("report", "state", time.monotonic() + ANSWER_S)
        stacks = self._native_stacks([rank for rank, p in enumerate(self.peers) if not (p.over or p.state)])
        self.states = {rank: self._state(rank, peer, stacks.get(rank)) for rank, peer in enumerate(self.peers)}
        return self.states

    @property
    def all_over(self) -> bool:
        """Whether nothing more is to be expected of any rank."""
        return all(peer.over for peer in self.peers)

    @property
    def fatal(self) -> bool:
        """Whether a rank failed or died that the others cannot do without."""
        return any(peer.lost and not peer.may_fail for peer in self.peers)

    @property
    def cause(self) -> bool:
        """Whether a rank failed of its own, and not for the loss of another."""
        blamed = [peer for peer in self.peers if peer.lost and not peer.may_fail]
        return any(peer.died or (peer.failed and not peer.failed["lost"]) for peer in blamed)

    def _ask(self, question: str, answer: str, deadline: float) -> None:
        """Asks every rank that still runs; its answer lands in that attribute of its `Peer`."""
        asked = [peer for peer in self.peers if not peer.over]
        for peer in asked:
            setattr(peer, answer, None)
            self._tell(peer, question)
        self._until(lambda: all(p.over or getattr(p, answer) for p in asked), deadline)

    def _stuck(self, deadline: float) -> bool:
        """Whether no rank can ever go on: all that still run wait, twice in a row, for calls that nobody can make."""
        self._ask("pulse", "pulse", min(deadline, time.monotonic() + ANSWER_S))
        pulses = [p.pulse for p in self.peers if not p.over]
        counts = [pulse["calls"] for pulse in pulses if pulse and pulse["waiting"]]
        before, self.pulse = self.pulse, counts
        if len(counts) < len(pulses) or counts != before or not pulses:
            return False
        return hopeless(self.ask_states())

    def _work(self) -> float:
        """What the ranks have done by their last pulse: calls, and seconds of their processors."""
        return sum(p.pulse["calls"] + p.pulse["processor_s"] if p.pulse else math.nan for p in self.peers if not p.over)

    def _native_stacks(self, ranks: list[int]) -> dict[int, list]:
        """Where ranks are that cannot answer: faulthandler writes it from a signal handler, whatever holds Python.

        A rank that has no file yet has not begun: it is left out, as the signal would only end it.
        """
        files = {rank: file for rank in ranks if os.path.exists(file := os.path.join(self.folder, f"stack{rank}"))}
        for pid in filter(None, (self.peers[rank].pid for rank in files)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        self._until_written(list(files.values()), time.monotonic() + STACK_S)
        return {rank: read_stack(file) for rank, file in files.items()}

    def _until_written(self, files: list[str], deadline: float) -> None:
        """Until there is something in each of `files` and none grows any more."""
        sizes: list[int] = []
        while files and time.monotonic() < deadline:
            self._until(lambda: False, time.monotonic() + 0.02)
            before, sizes = sizes, [os.path.getsize(file) for file in files]
            if all(sizes) and sizes == before:
                return

    def _state(self, rank: int, peer: Peer, stack: list | None) -> State:
        told = peer.done or peer.failed or peer.state or {}
        calls = told["calls"] if told else read_calls(os.path.join(self.folder, f"calls{rank}"))
        frames = stack if stack is not None else told.get("stack", [])
        line = "" if peer.done or peer.failed else learner_frame(frames)
        ended = describe_end(peer)
        begun = bool(told) or stack is not None
        return State(calls, line, peer.done is not None, ended, stack is not None, begun, told.get("made", {}))

    def _until(self, done, deadline: float) -> None:
        """Hears the ranks until `done()`. What they have said by `deadline` is heard, however late it is by now."""
        late = False
        while not (done() or late) and self._open():
            left = deadline - time.monotonic()
            late = left <= 0
            for key, _ in self.selector.select(max(left, 0)):
                key.data()

    def _open(self) -> int:
        return len(self.selector.get_map())

    def _tell(self, peer: Peer, word: str | int) -> None:
        with contextlib.suppress(OSError):
            wire.send(peer.sock, word)

    def _close(self, thing: Any) -> None:
        self.selector.unregister(thing)
        os.close(thing) if isinstance(thing, int) else thing.close()

    def _on_status(self) -> None:
        data = os.read(self.status_fd, wire.PIECE_BYTES)
        if not data:
            self._close(self.status_fd)
            for peer in self.peers:  # the server is gone, and its ranks with it
                peer.code = -signal.SIGKILL if peer.code is None else peer.code
            return
        *lines, self.status_data = (self.status_data + data).split(b"\n")
        for message in map(json.loads, lines):
            for pid, peer in zip(message.get("pids", ()), self.peers, strict=False):
                peer.pid = pid
            if "code" in message:
                peer = self.peers[message["rank"]]
                peer.code, peer.ended_s = message["code"], time.monotonic()
                if peer.lost and peer.may_fail:
                    for other in self.peers:
                        self._tell(other, message["rank"])

    def _on_message(self, peer: Peer, rank: int) -> None:
        try:
            data = peer.sock.recv(wire.PIECE_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            self._close(peer.sock)
        for message in peer.reader.feed(data):
            what = message.pop("what")
            if what == "progress":
                self.on_progress(rank, **message)
            else:
                setattr(peer, what, message)
                if what == "failed" and peer.may_fail:
                    self._tell(peer, "go")  # its connections close, so that its peers see it gone

    def _on_output(self, peer: Peer) -> None:
        data = os.read(peer.output_fd, wire.PIECE_BYTES)
        if not data:
            self._close(peer.output_fd)
        elif len(peer.printed) < OUTPUT_BYTES:
            peer.printed += data
            if len(peer.printed) >= OUTPUT_BYTES:
                peer.printed += b"\n... (the rest of this rank's output is left out)\n"
