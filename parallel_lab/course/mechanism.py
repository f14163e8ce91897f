"""What a trace must show for an answer to count: bytes, messages, rounds, peers.

Each `expect_*` raises `Wrong` with what was expected and what was seen, at which rank and world size. Bytes and
messages are counted at the sender (see `trace.span`). What the grader itself does around learner code sends nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from parallel_lab.course.lab import Outcome, Wrong
from parallel_lab.course.values import same
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.units import format_bytes as size

COLLECTIVES = (
    "all_reduce", "broadcast", "all_gather", "reduce_scatter", "reduce", "barrier", "all_to_all", "gather", "scatter",
)  # fmt: skip


def _total(spans: list[Span]) -> str:
    return size(sum(s.bytes for s in spans))


def forbid(outcome: Outcome, kinds: Iterable[str] = COLLECTIVES, advice: str = "Write it with send and recv.") -> None:
    """No operation of these `kinds` may stand in the trace."""
    for span in outcome.trace.spans:
        if span.kind in kinds:
            where = f" ({span.line})" if span.line else ""
            raise Wrong(f"{outcome.at}: rank {span.rank} called {span.kind}{where}, which this exercise builds", advice)


def expect_travel(outcome: Outcome, least: Callable[[int], int], what: str) -> None:
    """Rank r must have sent `least(r)` bytes or more: with less, what it returned cannot have come by message.

    Also pairs what was recorded: each message must have left one rank and arrived at another with the same bytes.
    `what` names the thing in the message: `any all-reduce`.
    """
    for rank in range(outcome.ranks):
        sent, wanted = outcome.trace.bytes_sent(rank), least(rank)
        if sent < wanted:
            raise Wrong(
                f"{outcome.at}: rank {rank} sent {size(sent)} by messages; {what} must send {size(wanted)}",
                "The data did not travel through the process group, or its recording was stopped.",
            )
    left, arrived = _by_pair(outcome.trace, ("send",)), _by_pair(outcome.trace, ("recv", "recv_reduce"))
    for key in left | arrived:
        sends, receives = left.get(key, []), arrived.get(key, [])
        if [s.bytes for s in sends] != [s.bytes for s in receives]:
            raise Wrong(
                f"{outcome.at}: rank {key[0]} sent rank {key[1]} {len(sends)} messages of {_total(sends)}, and "
                f"{len(receives)} of {_total(receives)} were received there",
                "Every send needs one receive of the same size, and the recorder must see both.",
            )


def expect_bytes(outcome: Outcome, most: Callable[[int], float], what: str, advice: str = "") -> None:
    """Rank r may send `most(r)` bytes at the most; `what` is who would: `a ring sends`."""
    for rank in range(outcome.ranks):
        sent = outcome.trace.bytes_sent(rank)
        if sent > most(rank):
            raise Wrong(f"{outcome.at}: rank {rank} sent {size(sent)}, {what} {size(most(rank))}", advice)


def expect_messages(outcome: Outcome, most: Callable[[int], int], what: str, advice: str = "") -> None:
    """Rank r may send `most(r)` messages at the most."""
    for rank in range(outcome.ranks):
        sent = outcome.trace.messages(rank)
        if sent > most(rank):
            raise Wrong(f"{outcome.at}: rank {rank} sent {sent} messages, {what} {most(rank)}", advice)


def expect_rounds(outcome: Outcome, most: int, what: str, advice: str = "") -> None:
    """The longest chain of messages that wait for each other may have `most` links (see `rounds`)."""
    seen = rounds(outcome.trace)
    if seen > most:
        raise Wrong(f"{outcome.at}: the messages took {seen} rounds, {what} {most}", advice)


def expect_heard(outcome: Outcome, expected: list) -> None:
    """Of a run with `garble=True`: a result that is right although a message was changed did not come by message."""
    if outcome.ranks > 1 and all(_equal(got, right) for got, right in zip(outcome.results, expected, strict=True)):
        raise Wrong(
            f"{outcome.at}: one message was changed on the way, and every rank still had the right result",
            "The data did not come by message; the messages are for show.",
        )


def _equal(got: Any, expected: Any) -> bool:
    try:
        same(got, expected, "")
    except Wrong:
        return False
    return True


def peers(trace: Trace, rank: int) -> set[int]:
    """The ranks to which `rank` sent."""
    return {s.peer for s in trace.of(rank) if s.kind == "send"}


def rounds(trace: Trace) -> int:
    """The length of the longest chain of messages in which each waits for the one before.

    A rank sends one message at a time (the one-port model), so its k-th send is at least in round k; and a send that
    was issued when a receive of the same rank was over is at least one round after the message received. A star from
    one root and a chain both take n - 1 rounds, a binomial tree ceil(log2 n).

    The end of a receive is the moment at which the rank had waited for it, so a receive that was posted early and
    awaited after a send does not count as one that the send waited for.
    """
    moments = []  # of all ranks, on one clock: a receive is over, a send is issued
    for sender, receiver in _matched(trace):
        moments += [(receiver.end_s, 0, sender, receiver), (sender.start_s, 1, sender, receiver)]
    number: dict[Span, int] = {}
    reached: Counter = Counter()  # rank -> round of the latest message that it sent or has received
    for _, issued, sender, receiver in sorted(moments, key=lambda moment: moment[:2]):
        if issued:
            number[sender] = reached[sender.rank] = reached[sender.rank] + 1
        else:
            reached[receiver.rank] = max(reached[receiver.rank], number.get(sender, 0))
    return max(number.values(), default=0)


def _matched(trace: Trace) -> list[tuple[Span, Span]]:
    """Each send with its receive. Messages from one rank to another arrive in order."""
    left, arrived = _by_pair(trace, ("send",)), _by_pair(trace, ("recv", "recv_reduce"))
    return [pair for key, sends in left.items() for pair in zip(sends, arrived.get(key, []), strict=False)]


def _by_pair(trace: Trace, kinds: tuple[str, ...]) -> dict[tuple, list[Span]]:
    """Messages of these kinds in the order of issue, by (sender, receiver, group)."""
    found: dict[tuple, list[Span]] = defaultdict(list)
    for s in trace.spans:
        if s.kind in kinds:
            found[(s.rank, s.peer, s.group) if s.kind == "send" else (s.peer, s.rank, s.group)].append(s)
    return found
