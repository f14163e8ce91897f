"""The vocabulary of graders: what an outcome must show for an answer to count.

Each function here makes a grader, which raises `Wrong` with what was expected and what was seen, at which rank and
number of ranks. Bytes and messages are counted at the sender (see `trace.span`). A *formula* is a function of the
number of ranks, `lambda n: 2 * (n - 1)`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any, Concatenate, ParamSpec

from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.values import TOLERANCE, Advice, same
from parallel_lab.plan import COMPUTE
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_bytes as size

ITEM_BYTES = 8  # float64
COLLECTIVES = (
    "all_reduce", "broadcast", "all_gather", "reduce_scatter", "reduce", "barrier", "all_to_all", "gather", "scatter",
)  # fmt: skip
Formula = Callable[[int], float]
Grader = Callable[[Outcome], None]
P = ParamSpec("P")


def grader(look: Callable[Concatenate[Outcome, P], None]) -> Callable[P, Grader]:
    """Makes `look(outcome, *arguments)` a word of the vocabulary: a function of the arguments that gives a grader."""

    @functools.wraps(look)
    def word(*args: P.args, **kwargs: P.kwargs) -> Grader:
        return lambda outcome: look(outcome, *args, **kwargs)

    return word


def each_rank(look: Callable[Concatenate[Outcome, int, str, P], None]) -> Callable[P, Grader]:
    """As `grader`, of `look(outcome, rank, where, *arguments)`, for each rank; `where` begins a message."""

    @grader
    @functools.wraps(look)
    def each(outcome: Outcome, *args: P.args, **kwargs: P.kwargs) -> None:
        for rank in range(outcome.ranks):
            look(outcome, rank, f"{outcome.at}: rank {rank}", *args, **kwargs)

    return each


@grader
def equals(outcome: Outcome, advice: Advice = "", tolerance: float = TOLERANCE) -> None:
    """Each rank returns what is expected of it."""
    for rank, (got, right) in enumerate(zip(outcome.results, outcome.expected, strict=True)):
        same(got, right, f"{outcome.at}: rank {rank}", advice, tolerance)


@each_rank
def keeps_input(outcome: Outcome, rank: int, where: str) -> None:
    """Each rank's arguments are what they were before the call."""
    if differ(outcome.given[rank], outcome.inputs[rank], tolerance=0.0):
        raise Wrong(f"{where} changed its input", "Work on a copy: whoever called you still needs the input.")


@grader
def heard(outcome: Outcome) -> None:
    """Of a case with `changed=True`: something arrived changed, so some rank's result must be wrong."""
    if not differ(outcome.results, outcome.expected):
        raise Wrong(
            f"{outcome.at}: what one rank received was changed on the way, and every rank was still right",
            "The data did not come by message; the messages are for show.",
        )


@grader
def unlike(outcome: Outcome, what: str, mistakes: Mapping[str, Callable[[Outcome], list]], advice: str) -> None:
    """The item `what` of the results is not that of a usual mistake, which a message can call by its name."""
    got, right = ([result[what] for result in results] for results in (outcome.results, outcome.expected))
    for mistake, made in mistakes.items():
        if differ(got, right) and not differ(got, [result[what] for result in made(outcome)]):
            raise Wrong(f"{outcome.at}: {mistake}", advice)


def differ(got: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether `got` is not what was expected."""
    try:
        same(got, expected, "", tolerance=tolerance)
    except Wrong:
        return True
    return False


@grader
def forbids(outcome: Outcome, *kinds: str, advice: str = "Write it with send and recv.") -> None:
    """No operation of these kinds was called; without kinds, no collective."""
    for s in outcome.trace.spans:
        if s.kind in (kinds or COLLECTIVES):
            at = f" ({s.line})" if s.line else ""
            raise Wrong(f"{outcome.at}: rank {s.rank} called {s.kind}{at}, which this exercise does without", advice)


@each_rank
def calls(outcome: Outcome, rank: int, where: str, *kinds: str, advice: str) -> None:
    """Each rank calls just these operations, in this order."""
    called = [s.kind for s in outcome.trace.of(rank) if s.lane != COMPUTE]
    if called != list(kinds):
        raise Wrong(f"{where} called {', '.join(called) or 'nothing'}; expected {', '.join(kinds)}", advice)


@grader
def sends(
    outcome: Outcome,
    what: str,
    most: Formula,
    least: Formula | None = None,
    *,
    advice: str = "",
    slack: float = 0.0,
    between: tuple[str, str] | None = None,
) -> None:
    """Each rank sends `most` bytes at the most, and all together at least `least` (default: as much) for each rank.

    `what` is who would: `a ring sends`. With `between`, it counts for each stretch between these marks of a driver.
    """
    at_most, at_least = most(outcome.ranks), (least or most)(outcome.ranks)
    stretches = [stretches_of(outcome, rank, between) for rank in range(outcome.ranks)]
    for number, of_ranks in enumerate(zip(*stretches, strict=True)):
        when = f" in {between[0]} {number}" if between else ""
        sent = [sum(s.sent_bytes for s in spans) for spans in of_ranks]
        for rank, total in enumerate(sent):
            if total > at_most + slack:
                raise Wrong(f"{outcome.at}: rank {rank} sent {size(total)}{when}, {what} {size(at_most)}", advice)
        if sum(sent) < outcome.ranks * (at_least - slack):
            wanted = f"{what} {size(outcome.ranks * at_least)} and cannot do with less"
            hidden = "The data did not travel through the process group."
            raise Wrong(f"{outcome.at}: the ranks sent {size(sum(sent))} together{when}; {wanted}", hidden)


def stretches_of(outcome: Outcome, rank: int, between: tuple[str, str] | None) -> list[list[Span]]:
    """The spans of `rank` from each first mark to the next last one, marks included; without marks, all of them."""
    spans = outcome.trace.of(rank)
    if between is None:
        return [spans]
    first, last = ([i for i, s in enumerate(spans) if s.lane == MARK and s.kind == kind] for kind in between)
    return [spans[start : stop + 1] for start, stop in zip(first, last, strict=True)]


@each_rank
def messages(outcome: Outcome, rank: int, where: str, what: str, most: Formula, advice: str = "") -> None:
    """Each rank sends `most` messages at the most."""
    sent = outcome.trace.messages(rank)
    if sent > most(outcome.ranks):
        raise Wrong(f"{where} sent {sent} messages, {what} {most(outcome.ranks)}", advice)


@each_rank
def peers(outcome: Outcome, rank: int, where: str, count: Formula, advice: str = "") -> None:
    """Each rank sends to `count` others."""
    to = sorted({s.peer for s in outcome.trace.of(rank) if s.kind == "send"})
    if len(to) != count(outcome.ranks):
        listed = ", ".join(map(str, to)) or "none"
        raise Wrong(f"{where} sent to ranks {listed}; expected {count(outcome.ranks)}", advice)


@grader
def takes_rounds(outcome: Outcome, what: str, most: Formula, advice: str = "") -> None:
    """The longest chain of messages that wait for each other has `most` links (see `rounds`)."""
    seen = rounds(outcome.trace)
    if seen > most(outcome.ranks):
        raise Wrong(f"{outcome.at}: the messages took {seen} rounds, {what} {most(outcome.ranks)}", advice)


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
    sent, waiting = [s for s in trace.spans if s.kind == "send"], [s for s in trace.spans if s.kind == "recv"]
    pairs = []
    for s in sent:
        if receiver := next((r for r in waiting if (r.peer, r.rank, r.group) == (s.rank, s.peer, s.group)), None):
            waiting.remove(receiver)
            pairs.append((s, receiver))
    return pairs


STEP, RUN = ("step", "step_over"), ("run", "run_over")  # the marks round a step, and round a whole training


def moved(spans: Iterable[Span]) -> list[Span]:
    """The communication among `spans`."""
    return [s for s in spans if s.lane != MARK and s.sent_messages]


@each_rank
def fills_buckets(outcome: Outcome, rank: int, where: str, most_bytes: int, most_calls: int) -> None:
    """In each step, no call carries more than `most_bytes`, and there are `most_calls` at the most."""
    for sent in map(moved, stretches_of(outcome, rank, STEP)):
        if big := [s for s in sent if s.bytes > most_bytes]:
            seen = f"{where} sent {size(big[0].bytes)} at once; a bucket has {size(most_bytes)}"
            raise Wrong(seen, "A bucket that waits for all gradients cannot start before backward has ended.")
        if len(sent) > most_calls:
            seen = f"{where} called {len(sent)} collectives a step; buckets of {size(most_bytes)} make {most_calls - 1}"
            raise Wrong(seen, "Each call costs its latency again: fill a bucket before you send it.")


@each_rank
def overlaps(outcome: Outcome, rank: int, where: str, share: float, advice: str = "") -> None:
    """In each step, `share` of the bytes are on their way while another layer's backward begins.

    Over a link so slow that a bucket takes longer than many layers, a collective counts if a mark `layer_backward`
    comes after its issue and before its end: one that was waited for at once has ended by then, and one that was issued
    at the end of backward has no layer after it.
    """
    for step in stretches_of(outcome, rank, STEP):
        _overlap(step, where, share, advice)


def _overlap(step: list[Span], where: str, share: float, advice: str) -> None:
    sent, last = moved(step), step[-1]
    kind = sent[0].kind if sent else "collective"
    # The slot of a span is written at its issue, with no length, and closed when it is over.
    if late := [s for s in sent if s.end_s > last.start_s or s.end_s == s.start_s]:
        seen = f"{where}: backward() returned while {len(late)} {kind} were still under way"
        raise Wrong(seen, "A gradient may be read as soon as backward() returns: wait for every bucket before.")
    layers = [place for place, s in enumerate(step) if s.lane == MARK and s.kind == "layer_backward"]
    early = [s for s in sent if layers and step.index(s) < layers[-1]]
    if not early:
        raise Wrong(f"{where}: every {kind} was issued after the last layer's backward: nothing overlaps", advice)
    beside = [s for s in early if any(p > step.index(s) and step[p].start_s < s.end_s for p in layers)]
    total, covered = sum(s.sent_bytes for s in sent), sum(s.sent_bytes for s in beside)
    if covered < share * total and len(beside) < len(early):
        raise Wrong(
            f"{where}: stood still for {len(early) - len(beside)} of {len(early)} {kind} that it issued during "
            "backward: no layer's backward began before they were over",
            "Issue it with async_op=True, keep the handle, and wait when backward is over.",
        )
    if covered < share * total:
        seen = f"{where}: {covered / total:.0%} of the bytes were under way beside backward, {share:.0%} wanted"
        raise Wrong(seen, advice)


@each_rank
def holds(outcome: Outcome, rank: int, where: str, *moments: tuple[str, str, str, str]) -> None:
    """At no moment that a driver measured does a rank hold more than the case's `limits` allow.

    `moments` are (name, in words, who holds as much, advice), the most telling first; the result's `held` has (name,
    layer, bytes) of each measurement.
    """
    limits = dict(outcome.case["limits"])
    for name, words, what, advice in moments:
        measured = [(part, held) for moment, part, held in outcome.results[rank]["held"] if moment == name]
        if not measured:
            raise Wrong(f"{where}: the layer was never called", "Compute with the layer that you were given.")
        for part, held in measured:
            if held > limits[name]:
                seen = f"{where} {words.format(part)} holds {size(held)}, {what} {size(limits[name])}"
                raise Wrong(seen, advice)


def rows_run(outcome: Outcome, rank: int) -> list[int]:
    """The number of rows in each forward through the model, in order."""
    (spans,) = stretches_of(outcome, rank, RUN)
    return [s.part for s in spans if s.lane == MARK and s.kind == "rows"]


@grader
def divides_batches(outcome: Outcome) -> None:
    """Each rank runs its share of each batch through the model, and no more; no row is left out."""
    options, ranks = dict(outcome.case["options"]), outcome.ranks
    steps, batch = options["steps"], options["batch"]
    counts = [sum(rows_run(outcome, rank)) for rank in range(ranks)]
    least, most = steps * (batch // ranks), steps * ceil(batch / ranks)
    for rank, ran in enumerate(counts):
        if not least <= ran <= most:
            share = str(least) if least == most else f"{least} to {most}"
            seen = f"{outcome.at}: rank {rank} ran {ran} samples through the model, its share is {share}"
            raise Wrong(seen, "The ranks divide each global batch among them; sizes differ by one at most.")
    if sum(counts) != steps * batch:
        seen = f"{outcome.at}: the ranks ran {sum(counts)} samples through the model, there were {steps * batch}"
        raise Wrong(seen, "No sample is left out or taken twice: some shares are larger by one.")


@each_rank
def runs_microbatches(outcome: Outcome, rank: int, where: str) -> None:
    """A share goes through the model in `microbatches` parts."""
    options = dict(outcome.case["options"])
    parts = options["microbatches"]
    times, most = options["steps"] * parts, ceil(ceil(options["batch"] / outcome.ranks) / parts)
    rows = rows_run(outcome, rank)
    if len(rows) != times or max(rows, default=0) > most:
        seen = f"{where} called the model {len(rows)} times, with {max(rows, default=0)} rows at the most"
        advice = "A microbatch bounds the activations held at once; it goes forward and backward by itself."
        raise Wrong(f"{seen}; {parts} microbatches make {times} times and {most} rows", advice)
