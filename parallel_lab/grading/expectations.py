"""The vocabulary of graders: what an outcome must show for an answer to count.

Each function makes a grader, `grader(outcome)`, which raises `Wrong` with what was expected and what was seen, at which
rank and world size. Bytes and messages are counted at the sender (see `trace.span`). A *formula* is a function of the
outcome's case, `lambda case: 2 * (case.ranks - 1)`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil
from typing import Any

from parallel_lab.grading.case import Case
from parallel_lab.grading.exercise import Grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.values import TOLERANCE, same
from parallel_lab.plan import COMPUTE
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_bytes as size

ITEM_BYTES = 8  # float64
COLLECTIVES = (
    "all_reduce", "broadcast", "all_gather", "reduce_scatter", "reduce", "barrier", "all_to_all", "gather", "scatter",
)  # fmt: skip
Formula = Callable[[Case], float]


def equals(advice: str | dict[str, str] = "", tolerance: float = TOLERANCE) -> Grader:
    """Each rank returns what is expected of it; `advice` may differ by the beginning of what is compared."""

    def grader(outcome: Outcome) -> None:
        for rank, (got, right) in enumerate(zip(outcome.results, outcome.expected, strict=True)):
            same(got, right, f"{outcome.at}: rank {rank}", advice, tolerance)

    return grader


def keeps_input() -> Grader:
    """Each rank's arguments are what they were before the call."""

    def grader(outcome: Outcome) -> None:
        for rank, (after, before) in enumerate(zip(outcome.given, outcome.inputs, strict=True)):
            if differ(after, before, tolerance=0.0):
                advice = "Work on a copy: whoever called you still needs the input."
                raise Wrong(f"{outcome.at}: rank {rank} changed its input", advice)

    return grader


def heard() -> Grader:
    """Of a case with `changed=True`: something arrived changed, so some rank's result must be wrong."""

    def grader(outcome: Outcome) -> None:
        if not differ(outcome.results, outcome.expected):
            raise Wrong(
                f"{outcome.at}: what one rank received was changed on the way, and every rank was still right",
                "The data did not come by message; the messages are for show.",
            )

    return grader


def differ(got: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether `got` is not what was expected."""
    try:
        same(got, expected, "", tolerance=tolerance)
    except Wrong:
        return True
    return False


def unlike(what: str, mistakes: dict[str, Callable[[Outcome], list]], advice: str) -> Grader:
    """The item `what` of the results is not that of a usual mistake, which a message can call by its name."""

    def grader(outcome: Outcome) -> None:
        got, right = ([result[what] for result in results] for results in (outcome.results, outcome.expected))
        for mistake, made in mistakes.items():
            if differ(got, right) and not differ(got, [result[what] for result in made(outcome)]):
                raise Wrong(f"{outcome.at}: {mistake}", advice)

    return grader


def forbids(*kinds: str, advice: str = "Write it with send and recv.") -> Grader:
    """No operation of these kinds was called; without kinds, no collective."""

    def grader(outcome: Outcome) -> None:
        for span in outcome.trace.spans:
            if span.kind in (kinds or COLLECTIVES):
                where = f" ({span.line})" if span.line else ""
                raise Wrong(f"{outcome.at}: rank {span.rank} called {span.kind}{where}, which is not wanted", advice)

    return grader


def calls(*kinds: str, advice: str) -> Grader:
    """Each rank calls just these operations, in this order."""

    def grader(outcome: Outcome) -> None:
        for rank in range(outcome.ranks):
            called = [span.kind for span in outcome.trace.of(rank) if span.lane != COMPUTE]
            if called != list(kinds):
                seen = f"{outcome.at}: rank {rank} called {', '.join(called) or 'nothing'}"
                raise Wrong(f"{seen}; expected {', '.join(kinds)}", advice)

    return grader


def sends(
    what: str,
    most: Formula,
    least: Formula | None = None,
    *,
    advice: str = "",
    slack: float = 0.0,
    between: tuple[str, str] | None = None,
) -> Grader:
    """Each rank sends `most` bytes at the most, and all together at least `least` (default: as much) for each rank.

    `what` is who would: `a ring`. With `between`, it counts for each stretch between these two marks of a driver.
    """

    def grader(outcome: Outcome) -> None:
        stretches = [stretches_of(outcome, rank, between) for rank in range(outcome.ranks)]
        at_most, at_least = most(outcome.case), (least or most)(outcome.case)
        for number, of_ranks in enumerate(zip(*stretches, strict=True)):
            where = f" in {between[0]} {number}" if between else ""
            sent = [sum(s.sent_bytes for s in spans) for spans in of_ranks]
            for rank, total in enumerate(sent):
                if total > at_most + slack:
                    raise Wrong(f"{outcome.at}: rank {rank} sent {size(total)}{where}, {what} {size(at_most)}", advice)
            if sum(sent) < outcome.ranks * (at_least - slack):
                raise Wrong(
                    f"{outcome.at}: the ranks sent {size(sum(sent))} together{where}; {what} "
                    f"{size(outcome.ranks * at_least)} and cannot do with less",
                    "The data did not travel through the process group.",
                )

    return grader


def stretches_of(outcome: Outcome, rank: int, between: tuple[str, str] | None) -> list[list[Span]]:
    """The spans of `rank` from each first mark to the next last one, marks included; without marks, all of them."""
    spans = outcome.trace.of(rank)
    if between is None:
        return [spans]
    first, last = ([i for i, s in enumerate(spans) if s.lane == MARK and s.kind == kind] for kind in between)
    return [spans[start : stop + 1] for start, stop in zip(first, last, strict=True)]


def messages(what: str, most: Formula, advice: str = "") -> Grader:
    """Each rank sends `most` messages at the most."""

    def grader(outcome: Outcome) -> None:
        for rank in range(outcome.ranks):
            sent = outcome.trace.messages(rank)
            if sent > most(outcome.case):
                raise Wrong(f"{outcome.at}: rank {rank} sent {sent} messages, {what} {most(outcome.case)}", advice)

    return grader


def peers(count: Formula, advice: str = "") -> Grader:
    """Each rank sends to `count` others."""

    def grader(outcome: Outcome) -> None:
        for rank in range(outcome.ranks):
            to = sorted({s.peer for s in outcome.trace.of(rank) if s.kind == "send"})
            if len(to) != count(outcome.case):
                listed = ", ".join(map(str, to)) or "none"
                raise Wrong(f"{outcome.at}: rank {rank} sent to ranks {listed}; expected {count(outcome.case)}", advice)

    return grader


def takes_rounds(what: str, most: Formula, advice: str = "") -> Grader:
    """The longest chain of messages that wait for each other has `most` links (see `rounds`)."""

    def grader(outcome: Outcome) -> None:
        seen = rounds(outcome.trace)
        if seen > most(outcome.case):
            raise Wrong(f"{outcome.at}: the messages took {seen} rounds, {what} {most(outcome.case)}", advice)

    return grader


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


STEP = ("step", "step_over")  # the marks round a step of training


def moved(spans: Iterable[Span]) -> list[Span]:
    """The communication among `spans`."""
    return [s for s in spans if s.lane != MARK and s.sent_messages]


def fills_buckets(most_bytes: int, most_calls: int) -> Grader:
    """In each step, no call carries more than `most_bytes`, and there are `most_calls` at the most."""

    def grader(outcome: Outcome) -> None:
        for rank in range(outcome.ranks):
            for sent in map(moved, stretches_of(outcome, rank, STEP)):
                where, bucket = f"{outcome.at}: rank {rank}", size(most_bytes)
                if big := [s for s in sent if s.bytes > most_bytes]:
                    seen = f"{where} sent {size(big[0].bytes)} at once; a bucket has {bucket}"
                    raise Wrong(seen, "A bucket that waits for all gradients cannot start before backward has ended.")
                if len(sent) > most_calls:
                    seen = f"{where} called {len(sent)} collectives a step; buckets of {bucket} make {most_calls - 1}"
                    raise Wrong(seen, "Each call costs its latency again: fill a bucket before you send it.")

    return grader


def overlaps(share: float, advice: str = "") -> Grader:
    """In each step, `share` of the bytes are on their way while another layer's backward begins.

    Over a link so slow that a bucket takes longer than many layers, a collective counts if a mark `layer_backward`
    comes after its issue and before its end: one that was waited for at once has ended by then, and one that was issued
    at the end of backward has no layer after it.
    """

    def grader(outcome: Outcome) -> None:
        for rank in range(outcome.ranks):
            for step in stretches_of(outcome, rank, STEP):
                _overlap(step, f"{outcome.at}: rank {rank}", share, advice)

    return grader


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


def holds(*moments: tuple[str, str, str, str]) -> Grader:
    """At no moment that a driver measured does a rank hold more than the case's `limits` allow.

    `moments` are (name, in words, who holds as much, advice), the most telling first; the result's `held` has (name,
    layer, bytes) of each measurement.
    """

    def grader(outcome: Outcome) -> None:
        limits = dict(outcome.case["limits"])
        for rank, result in enumerate(outcome.results):
            for name, words, what, advice in moments:
                measured = [(part, held) for where, part, held in result["held"] if where == name]
                if not measured:
                    raise Wrong(
                        f"{outcome.at}: rank {rank}: the layer was never called", "Compute with `layer` itself."
                    )
                for part, held in measured:
                    if held > limits[name]:
                        seen = f"{outcome.at}: rank {rank} {words.format(part)} holds {size(held)}"
                        raise Wrong(f"{seen}, {what} {size(limits[name])}", advice)

    return grader


RUN = ("run", "run_over")  # the marks round the call


def rows_run(outcome: Outcome, rank: int) -> list[int]:
    """The number of rows in each forward through the model, in order."""
    (spans,) = stretches_of(outcome, rank, RUN)
    return [s.part for s in spans if s.lane == MARK and s.kind == "rows"]


def divides_batches() -> Grader:
    """Each rank runs its share of each batch through the model, and no more; no row is left out."""

    def grader(outcome: Outcome) -> None:
        options = dict(outcome.case["options"])
        steps, batch, ranks = options["steps"], options["batch"], outcome.ranks
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

    return grader


def runs_microbatches() -> Grader:
    """A share goes through the model in `microbatches` parts."""

    def grader(outcome: Outcome) -> None:
        options = dict(outcome.case["options"])
        times = options["steps"] * options["microbatches"]
        most = ceil(ceil(options["batch"] / outcome.ranks) / options["microbatches"])
        for rank in range(outcome.ranks):
            rows = rows_run(outcome, rank)
            if len(rows) != times or max(rows, default=0) > most:
                seen = f"{outcome.at}: rank {rank} called the model {len(rows)} times"
                seen += f", with {max(rows, default=0)} rows at the most; {options['microbatches']} microbatches make"
                raise Wrong(
                    f"{seen} {times} times and {most} rows",
                    "A microbatch bounds the activations held at once; it goes forward and backward by itself.",
                )

    return grader
