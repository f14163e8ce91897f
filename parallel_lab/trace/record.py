"""Recording on a rank: `span` marks a stretch of work, `tag` names the messages sent inside it, `progress` reports.

One `Recorder` a process collects spans; the process group adds what it sends and receives, learners and techniques add
what they compute. Times are taken from the monotonic clock, which all processes of one machine share, so that the
traces of all ranks fit together with no synchronization.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from parallel_lab.plan import COMPUTE, LETTERS
from parallel_lab.trace.span import Sample, Span

T = TypeVar("T")


class Recorder:
    """Collects the spans and memory samples of this process.

    Attributes:
        rank: this process's rank, written into each span.
        began_s: the moment of the monotonic clock that counts as zero.
        spans: in the order of issue: a slot is reserved when work is issued and filled in when it is complete.
        report: what `progress` calls with (label, done, total); None outside a launch.
    """

    def __init__(self, rank: int = 0, began_s: float = 0.0) -> None:
        self.rank = rank
        self.began_s = began_s
        self.spans: list[Span] = []
        self.samples: list[Sample] = []
        self.enabled = True
        self.report: Callable[[str, int, int | None], None] | None = None
        self._messages: Counter = Counter()
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def tags(self) -> list[dict]:
        """The names that the present thread gives to its messages, innermost last."""
        try:
            return self._thread.tags
        except AttributeError:
            self._thread.tags = []
            return self._thread.tags

    def now(self) -> float:
        """Seconds since the trace began."""
        return time.monotonic() - self.began_s

    def issue(self, kind: str, *, tagged: bool = True, **fields) -> int:
        """Reserves the slot of a span that starts now and returns its index; `complete` fills in the end."""
        fields.setdefault("start_s", self.now())
        if tagged and (tags := self.tags):
            fields |= tags[-1]
            kind = fields.pop("kind", kind)
        elif "peer" in fields:
            fields["mb"] = self._count(kind, fields["peer"], fields.get("group", ""))
        span = Span(self.rank, LETTERS.get(kind, kind), end_s=fields["start_s"], **fields)
        with self._lock:  # the index belongs to this span, whatever other threads issue
            self.spans.append(span)
            return len(self.spans) - 1

    def complete(self, index: int, wait_s: float = 0.0, end_s: float | None = None) -> None:
        """Closes the span at `index`; `wait_s` is how long the rank's thread waited for it.

        `end_s` is a moment of the monotonic clock, where the end was not now.
        """
        end_s = self.now() if end_s is None else end_s - self.began_s
        self.spans[index] = self.spans[index]._replace(end_s=end_s, wait_s=wait_s)

    def waited(self, index: int, wait_s: float) -> None:
        """Notes how long the rank's thread waited for a span that is closed already."""
        self.spans[index] = self.spans[index]._replace(wait_s=wait_s)

    def sample(self, held_bytes: int, kind: str = "all") -> None:
        """Notes that this rank now holds `held_bytes` of `kind`."""
        self.samples.append(Sample(self.rank, self.now(), held_bytes, kind))

    def _count(self, kind: str, peer: int, group: str) -> int:
        # Messages between two ranks arrive in order, so the k-th send pairs with the k-th receive.
        with self._lock:
            self._messages[kind, peer, group] += 1
            return self._messages[kind, peer, group] - 1


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
    if not keeper.enabled:
        yield
        return
    index = keeper.issue(kind, tagged=False, part=part, mb=mb, lane=lane, axis=axis, phase=phase)
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
    keeper.tags.append({**keeper.tags[-1], **fields} if keeper.tags else fields)
    try:
        yield
    finally:
        keeper.tags.pop()


def progress(iterable: Iterable[T], label: str = "", total: int | None = None) -> Iterator[T]:
    """Yields from `iterable` inside a rank and moves one bar under the notebook cell; silent outside a launch.

    `total` is taken from `len(iterable)` where it has one.
    """
    keeper = recorder()
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)  # type: ignore[arg-type]
    for done, item in enumerate(iterable):
        if keeper.report:
            keeper.report(label, done, total)
        yield item
    if keeper.report and total:
        keeper.report(label, total, total)
