"""Recording on a rank: `span` marks a stretch of work, `tag` names the messages sent inside it, `progress` reports.

One `Recorder` a process collects spans; the process group adds what it sends and receives, learners and techniques add
what they compute. Times are taken from the monotonic clock, which all processes of one machine share, so that the
traces of all ranks fit together.

Recording is switched off by `launch(record=False)`, by `PARALLEL_LAB_RECORD=0` in the environment of torchrun, or by
`recorder().enabled = False`. It is bounded: of a long run the first `LIMIT` spans are kept and the others are counted.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from parallel_lab.plan import COMPUTE, LETTERS
from parallel_lab.trace.span import Sample, Span, Trace

T = TypeVar("T")
LIMIT = 50_000  # spans, and as many samples: some 20 MB
NAMES_KEPT = 10_000  # names of one stream of messages; so a long run needs no more memory
NOT_KEPT = -1  # the index of a span that is not recorded


def wanted() -> bool:
    """Whether the environment lets a process record: everything but `PARALLEL_LAB_RECORD=0`."""
    return os.environ.get("PARALLEL_LAB_RECORD", "1") != "0"


@dataclass(eq=False)
class Recorder:
    """Collects the spans and memory samples of this process."""

    rank: int = 0  # this process's, written into each span
    began_s: float = 0.0  # the moment of the monotonic clock that counts as zero
    enabled: bool = field(default_factory=wanted)  # whether anything is recorded
    limit: int = LIMIT  # how many spans, and how many samples, are kept
    left_out: int = 0  # how many came after that
    spans: list[Span] = field(default_factory=list)  # a slot is reserved at the issue and filled in at the end
    samples: list[Sample] = field(default_factory=list)  # bytes held over time
    sent_bytes: int = 0  # what has left this rank since the beginning, whether or not it was recorded
    sent_by_axis: Counter[str] = field(default_factory=Counter)  # the same by axis of the mesh; "" is the default group
    report: Callable[[str, int, int | None], None] | None = None  # takes (label, done, total) of `progress`
    stopwatch: Any = None  # tells when a GPU begins and ends what is queued between two lines (`runtime.rank.gpu`)
    in_backward: Callable[[], bool] = bool  # whether a backward pass runs on this thread

    def __post_init__(self) -> None:
        self._marks: dict[int, list] = {}  # index -> the marks of the beginning and, once it is known, the end
        self._counts: dict[tuple, dict[tuple, int]] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._own_tags = self.tags

    @property
    def tags(self) -> list[dict]:
        """The names that the present thread gives to its messages, innermost last."""
        if not hasattr(self._thread, "tags"):
            self._thread.tags = []
        return self._thread.tags

    @property
    def names(self) -> dict:
        """What the tags say in all. On a thread of autograd's own, those around `backward()` count."""
        tags = self.tags or (self._own_tags if self.in_backward() else ())
        return tags[-1] if tags else {}

    def now(self) -> float:
        """Seconds since the trace began."""
        return time.monotonic() - self.began_s

    def issue(self, kind: str, **fields) -> int:
        """Reserves the slot of a span that starts now and returns its index; `complete` fills in the end.

        Tags name messages and collectives, which are known by their `peer` or `group`. One whose `part` no tag names
        gets a number as its part: it is the i-th of its kind, peer and axis with the same other names. Messages between
        two ranks arrive in order, so the i-th send pairs with the i-th receive.
        """
        with self._lock:  # the index belongs to this span, whatever other threads issue
            if sent := fields.get("sent_bytes", 0):
                self.sent_bytes += sent
                self.sent_by_axis[fields.get("axis", "")] += sent
            if not self.enabled or self._is_full(self.spans):
                return NOT_KEPT
            start_s = fields.setdefault("start_s", self.now())
            if "peer" in fields or "group" in fields:
                kind = self._name(kind, fields)
            if self.stopwatch and fields.get("lane", COMPUTE) == COMPUTE:
                self._marks[len(self.spans)] = [self.stopwatch.mark()]
            self.spans.append(Span(self.rank, LETTERS.get(kind, kind), end_s=start_s, ended=False, **fields))
            return len(self.spans) - 1

    def _name(self, kind: str, fields: dict) -> str:
        """Adds to `fields` what the tags say, and the number of what they leave without a part; returns the kind."""
        if names := self.names:
            axis = fields.get("axis", "")
            fields |= names
            fields["axis"] = fields.get("axis") or axis
            kind = fields.pop("kind", kind)
        if "part" not in fields and fields.get("peer") != -1:  # of a receive from anyone, `came_from` counts it
            names = (fields.get("mb", 0), fields.get("phase", ""), fields.get("round", 0))
            fields["part"] = self._count((kind, fields.get("peer", -1), fields.get("axis", "")), names)
        return kind

    def came_from(self, index: int, peer: int) -> None:
        """Fills in who sent the message of the receive at `index`, which any rank could have sent."""
        if index == NOT_KEPT:
            return
        with self._lock:
            s = self.spans[index]
            part = self._count((s.kind, peer, s.axis), (s.mb, s.phase, s.round)) if s.part < 0 else s.part
            self.spans[index] = s._replace(peer=peer, part=part)

    def names_inside(self, axis: str) -> dict[str, str]:
        """What a collective made of messages adds to the tags of those messages, so that no other has the same name.

        The outer tag keeps its microbatch, axis and phase; its part goes into the phase, since a message's own part is
        a chunk. The second collective of the same names on the same axis gets a number.
        """
        if not self.enabled:
            return {}
        outer = self.names
        phase = outer.get("phase", "") + (f"/{outer['part']}" if "part" in outer else "")
        with self._lock:
            number = self._count(("collective", outer.get("axis") or axis), (outer.get("mb"), phase))
        return {"phase": f"{phase}.{number}" if number else phase}

    def complete(self, index: int, wait_s: float = 0.0, end_s: float | None = None) -> None:
        """Closes the span at `index`; `wait_s` is how long the rank's thread waited for it.

        `end_s` is a moment of the monotonic clock, where the end was not now. A message that was here before its
        receive was asked for ends when that begins.
        """
        if index == NOT_KEPT:
            return
        if index in self._marks:
            self._marks[index].append(self.stopwatch.mark())
        end_s = self.now() if end_s is None else end_s - self.began_s
        self.spans[index] = self.spans[index]._replace(end_s=max(end_s, self.spans[index].start_s), ended=True)
        self.waited(index, wait_s)

    def waited(self, index: int, wait_s: float) -> None:
        """Notes how long the rank's thread waited for a span that is closed already.

        A busy machine wakes a thread some time after what it waited for is there. That time is not the span's.
        """
        if index != NOT_KEPT:
            s = self.spans[index]
            self.spans[index] = s._replace(wait_s=min(wait_s, s.end_s - s.start_s))

    def sample(self, held_bytes: int, kind: str = "all") -> None:
        """Notes that this rank now holds `held_bytes` of `kind`."""
        if self.enabled and not self._is_full(self.samples):
            self.samples.append(Sample(self.rank, self.now(), held_bytes, kind))

    def trace(self, ranks: int) -> Trace:
        """What this process has recorded, as the trace of a run of `ranks` ranks."""
        self._settle()
        return self.so_far(ranks)

    def so_far(self, ranks: int) -> Trace:
        """The same without asking a GPU when it began and ended what it computed: one that hangs never says."""
        return Trace(ranks, tuple(self.spans), tuple(self.samples), left_out=self.left_out)

    def _settle(self) -> None:
        """Fills in the times of what a GPU computed: it began and ended when the GPU came to it."""
        for index, marks in self._marks.items():
            ends = zip(("start_s", "end_s"), marks, strict=False)
            times = {name: self.stopwatch.seconds(mark) - self.began_s for name, mark in ends if mark is not None}
            self.spans[index] = self.spans[index]._replace(**times)
        self._marks.clear()

    def _is_full(self, kept: list) -> bool:
        self.left_out += len(kept) >= self.limit
        return len(kept) >= self.limit

    def _count(self, stream: tuple, names: tuple) -> int:
        """How many of the same names there were before in this stream.

        Both ends of a stream see the same names in the same order, so both forget them at the same moment.
        """
        counts = self._counts.setdefault(stream, {})
        if len(counts) >= NAMES_KEPT and names not in counts:
            counts.clear()
        counts[names] = counts.get(names, -1) + 1
        return counts[names]


_current = Recorder()


def recorder() -> Recorder:
    """The recorder of this process."""
    return _current


def install(new: Recorder) -> Recorder:
    """Makes `new` the recorder of this process and returns the one it replaces."""
    global _current
    old, _current = _current, new
    return old


@contextmanager
def span(
    kind: str, *, part: int = 0, mb: int = 0, lane: str = COMPUTE, axis: str = "", phase: str = ""
) -> Iterator[None]:
    """Marks what runs inside as one stretch of work of this rank: `with span("forward", part=1, mb=0): ...`.

    `kind` is `forward`, `backward`, `backward_input`, `backward_weight` or a word of your own.
    """
    keeper = recorder()
    index = keeper.issue(kind, part=part, mb=mb, lane=lane, axis=axis, phase=phase)
    try:
        yield
    finally:
        keeper.complete(index)


@contextmanager
def tag(**fields) -> Iterator[None]:
    """Names the messages and collectives issued inside, by the fields of `plan.Op`: part, mb, phase, axis, round, kind.

    Tags nest: an inner one adds to the outer one, or says otherwise.
    """
    keeper = recorder()
    keeper.tags.append({**keeper.names, **fields})
    try:
        yield
    finally:
        keeper.tags.pop()


def progress(iterable: Iterable[T], label: str = "", total: int | None = None) -> Iterator[T]:
    """Yields from `iterable` inside a rank and moves one bar under the notebook cell; silent outside a launch.

    `total` is taken from `len(iterable)` where it has one.
    """
    report = recorder().report or (lambda *_: None)
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    for done, item in enumerate(iterable):
        report(label, done, total)
        yield item
    if total:
        report(label, total, total)
