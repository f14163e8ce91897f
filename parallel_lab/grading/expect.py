"""The vocabulary of graders: what an outcome must show for an answer to count.

Each function here makes a grader, which raises `Wrong` with what was expected and what was seen, at which rank and
number of ranks. Bytes and messages are counted at the sender (see `trace.span`). A *formula* is a function of the
number of ranks, `lambda n: 2 * (n - 1)`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any, Concatenate, ParamSpec

from torch import Tensor

from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.locate import Family, located
from parallel_lab.grading.patterns import MESSAGES, pattern
from parallel_lab.grading.trial import leaves
from parallel_lab.grading.values import Advice, differ, same
from parallel_lab.grading.workers import SPAN
from parallel_lab.plan import COMPUTE
from parallel_lab.runtime.kernel.report import places
from parallel_lab.trace import Span, Trace
from parallel_lab.trace.span import MARK
from parallel_lab.trace.units import format_bytes as size

BY_MESSAGES = "Send to the rank that needs it, and let it receive: in a collective every rank waits for the slowest."
BARRIER = "A barrier carries no data. If it was for looking for a mistake, take it out again."
STEP, RUN = ("step", "step_over"), ("run", "run_over")  # a driver's marks round a step, and round a whole training
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


@each_rank
def equals(outcome: Outcome, rank: int, where: str, advice: Advice = "") -> None:
    """Each rank returns what is expected of it; if a usual mistake explains it, the advice begins with that."""

    def locate(got: Tensor, expected: Tensor) -> str:
        return located(got, expected, _families(outcome), _alone(outcome, rank).get(id(expected), []), rank)

    try:
        same(outcome.results[rank], outcome.expected[rank], where, advice, locate)
    except Wrong as wrong:
        if not (said := pattern(outcome, rank)):
            raise
        about_values = "" if outcome.results[rank] is None else wrong.advice
        raise Wrong(wrong.seen, f"{said} {about_values}".strip()) from None


def _families(outcome: Outcome) -> list[Family]:
    """The tensors that the ranks were given at the same place of their arguments."""
    ranks = [list(leaves(inputs)) for inputs in outcome.inputs]
    if len({tuple(t.shape for t in own) for own in ranks}) != 1:
        return []
    names = ["{} input"] if len(ranks[0]) == 1 else [f"tensor {place} of {{}} input" for place in range(len(ranks[0]))]
    return list(zip(names, zip(*ranks, strict=True), strict=True))


def _alone(outcome: Outcome, rank: int) -> dict[int, list[Tensor]]:
    """For each expected tensor of `rank`, by its id, what would be right if only one rank's data counted."""
    made = []
    for one in range(outcome.ranks):
        case = replace(outcome.case, settings=(*outcome.case.settings, ("only", one)))
        made.append(leaves(replace(outcome, case=case).expected[rank]))
    right = leaves(outcome.expected[rank])
    return {id(tensor): list(others) for tensor, *others in zip(right, *made, strict=True)}


@each_rank
def keeps_input(outcome: Outcome, rank: int, where: str) -> None:
    """Each rank's arguments are what they were before the call."""
    if differ(outcome.given[rank], outcome.inputs[rank]):
        raise Wrong(f"{where} changed its input", "Work on a copy: whoever called you still needs the input.")


@grader
def heard(outcome: Outcome) -> None:
    """Of a case that is `changed`: something arrived changed, so some rank's result must be wrong."""
    if not differ(outcome.results, outcome.expected):
        seen = f"{outcome.at}: what one rank received was changed on the way, and every rank was still right"
        raise Wrong(seen, "No result depends on what came: is what a rank receives used?")


@grader
def unlike(outcome: Outcome, what: str, mistakes: Mapping[str, dict[str, Any]], advice: str) -> None:
    """The item `what` of the results is not that of a usual mistake, which is to work with other settings."""
    got, right = ([result[what] for result in results] for results in (outcome.results, outcome.expected))
    for mistake, settings in mistakes.items():
        other = replace(outcome.case, settings=outcome.case.settings + tuple(settings.items()))
        made = replace(outcome, case=other).expected
        if differ(got, right) and not differ(got, [result[what] for result in made]):
            raise Wrong(f"{outcome.at}: {mistake}", advice)


@grader
def forbids(outcome: Outcome, *kinds: str, advice: str = BY_MESSAGES) -> None:
    """No operation of these kinds was called; without kinds, no collective."""
    for s in outcome.trace.spans:
        if s.kind in kinds if kinds else s.lane not in (MARK, COMPUTE) and s.kind not in MESSAGES:
            at = f" ({places(s.line)})" if s.line else ""
            seen = f"{outcome.at}: rank {s.rank} called {s.kind}{at}, which this exercise does without"
            raise Wrong(seen, BARRIER if s.kind == "barrier" else advice)


@each_rank
def calls(outcome: Outcome, rank: int, where: str, *kinds: str, advice: str, words: str = "") -> None:
    """Each rank calls just these operations, in this order; `words` say what is expected without a name."""
    called = [s.kind for s in outcome.trace.of(rank) if s.lane != COMPUTE]
    if called != list(kinds):
        raise Wrong(f"{where} called {', '.join(called) or 'nothing'}; expected {words or ', '.join(kinds)}", advice)


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
    times: str = "",
) -> None:
    """Each rank sends `most` bytes at the most, and all together at least `least` (default: as much) for each rank.

    `what` is who would: `a ring sends`. With `between`, it counts for each stretch between these marks of a driver.
    The setting `times` says how often as much is sent, and stands in `what` for its braces.
    """
    ranks, count = outcome.ranks, outcome.case.get(times, 1)
    at_most, at_least = count * most(ranks), count * (least or most)(ranks)
    stretches = [stretches_of(outcome, rank, between) for rank in range(ranks)]
    for number, of_ranks in enumerate(zip(*stretches, strict=True)):
        when, would = f" in {between[0]} {number}" if between else "", what.format(count)
        sent = [sum(s.sent_bytes for s in spans) for spans in of_ranks]
        if (largest := max(sent)) > at_most + slack:
            seen = f"{outcome.at}: rank {sent.index(largest)} sent {size(largest)}{when}"
            raise Wrong(f"{seen}, {would} {size(at_most)}", advice)
        if sum(sent) < ranks * (at_least - slack):
            seen = f"{outcome.at}: the ranks sent {size(sum(sent))} together{when}"
            raise Wrong(
                f"{seen}; {would} {size(ranks * at_least)} and cannot do with less",
                too_few(sum(sent), ranks * at_least),
            )


def too_few(sent_bytes: float, wanted_bytes: float) -> str:
    """What a number of bytes that is too low hints at."""
    if not sent_bytes:
        return "No bytes were sent: how does a rank get what others have?"
    if 0.45 < sent_bytes / wanted_bytes < 0.55:
        return "That is half of the bytes: do all ranks send, in all rounds, and numbers as wide as they were given?"
    return "What does a rank need from the others that was not sent to it?"


def stretches_of(outcome: Outcome, rank: int, between: tuple[str, str] | None) -> list[list[Span]]:
    """The spans of `rank` from each first mark to the next last one, marks included; without marks, all of them."""
    spans = outcome.trace.of(rank)
    if between is None:
        return [spans]
    first, last = ([i for i, s in enumerate(spans) if s.lane == MARK and s.kind == kind] for kind in between)
    return [spans[start : stop + 1] for start, stop in zip(first, last, strict=True)]


@each_rank
def messages(
    outcome: Outcome, rank: int, where: str, what: str, most: Formula, advice: str = "", few: str = ""
) -> None:
    """Each rank sends `most` messages at the most; with `few`, the advice for less, it sends just as many."""
    sent, wanted = outcome.trace.messages(rank), most(outcome.ranks)
    if sent > wanted or (few and sent < wanted):
        seen = f"{where} sent {sent} message{'s' * (sent != 1)}, {what} {wanted}"
        raise Wrong(seen, advice if sent > wanted else few)


@each_rank
def peers(outcome: Outcome, rank: int, where: str, count: Formula, advice: str = "") -> None:
    """Each rank sends to `count` others."""
    to = sorted({s.peer for s in outcome.trace.of(rank) if s.kind == "send"})
    if len(to) != count(outcome.ranks):
        listed = ", ".join(map(str, to)) or "none"
        raise Wrong(f"{where} sent to ranks {listed}; expected {count(outcome.ranks)}", advice)


@each_rank
def sends_to_the_right(outcome: Outcome, rank: int, where: str, advice: str = "") -> None:
    """Each rank sends to its right neighbor in the ring, and to nobody else."""
    to, right = {s.peer for s in outcome.trace.of(rank) if s.kind == "send"}, (rank + 1) % outcome.ranks
    if to != {right}:
        listed = f"rank{'s' * (len(to) > 1)} {', '.join(map(str, sorted(to)))}" if to else "nobody"
        raise Wrong(f"{where} sent to {listed}; expected rank {right} alone", advice)


@grader
def takes_rounds(outcome: Outcome, what: str, most: Formula, advice: str = "") -> None:
    """The longest chain of messages that wait for each other has `most` links (see `rounds`)."""
    seen = rounds(outcome.trace)
    if seen > most(outcome.ranks):
        raise Wrong(f"{outcome.at}: the messages took {seen} rounds, {what} {most(outcome.ranks)}", advice)


def rounds(trace: Trace) -> int:
    """The length of the longest chain of messages in which each waits for the one before.

    A rank sends one message at a time (the one-port model), so its i-th send is at least in round i; and a send that
    was issued when a receive of the same rank was over, which is when the rank had waited for it, is at least one round
    after the message received. A star from one root and a chain both take n - 1 rounds, a binomial tree ceil(log2 n).
    """
    moments, counted = [], Counter()  # of all ranks, on one clock: a receive is over, a send is issued
    for s in (s for s in trace.spans if s.kind in MESSAGES):
        sends = s.kind == "send"
        way = (s.rank, s.peer) if sends else (s.peer, s.rank)
        counted[sends, way] += 1  # messages from one rank to another arrive in order
        moments.append((s.start_s if sends else s.end_s, sends, (*way, counted[sends, way])))
    number: dict[tuple, int] = {}
    reached: Counter = Counter()  # rank -> round of the latest message that it sent or has received
    for _, sends, message in sorted(moments):
        sender, receiver, _ = message
        if sends:
            number[message] = reached[sender] = reached[sender] + 1
        else:
            reached[receiver] = max(reached[receiver], number.get(message, 0))
    return max(number.values(), default=0)


def _moved(spans: list[Span]) -> list[Span]:
    return [s for s in spans if s.lane != MARK and s.sent_messages]


@each_rank
def fills_buckets(outcome: Outcome, rank: int, where: str, most_bytes: int, most_calls: int) -> None:
    """In each step, no call carries more than `most_bytes`, and there are `most_calls` at the most."""
    for sent in map(_moved, stretches_of(outcome, rank, STEP)):
        if (largest := max((s.bytes for s in sent), default=0)) > most_bytes:
            seen = f"{where} sent {size(largest)} at once; a bucket has {size(most_bytes)}"
            raise Wrong(seen, "A bucket that waits for all gradients cannot start before backward has ended.")
        if len(sent) > most_calls:
            make = f"buckets of {size(most_bytes)} make {most_calls - 1}"
            seen = f"{where} called {len(sent)} collectives per step; {make}"
            raise Wrong(seen, "Each call costs its latency again: fill a bucket before you send it.")


@each_rank
def overlaps(outcome: Outcome, rank: int, where: str, share: float, advice: str = "") -> None:
    """In each step, `share` of the bytes are on their way while another layer's backward begins.

    Over a link so slow that a bucket takes longer than many layers, a collective counts if a mark `layer_backward` lies
    between its issue and its end: one waited for at once has ended by then, one issued last has no layer after it.
    """
    for step in stretches_of(outcome, rank, STEP):
        _overlap(step, where, share, advice)


def _overlap(step: list[Span], where: str, share: float, advice: str) -> None:
    sent, last = _moved(step), step[-1]
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
    covered = sum(s.sent_bytes for s in beside) / sum(s.sent_bytes for s in sent)
    if covered < share:
        still = f"it stood still for {len(early) - len(beside)} of {len(early)} {kind} that it issued during backward"
        seen = f"{where}: {covered:.0%} of the bytes were under way beside backward, {share:.0%} wanted; {still}"
        raise Wrong(seen, "Issue it with async_op=True as early as you can, and wait when backward is over.")


@each_rank
def holds(outcome: Outcome, rank: int, where: str, *moments: str) -> None:
    """At no moment that a driver measured (or at none of `moments`) does a rank hold more than the `limits` allow.

    They are (moment, most bytes, in words, who holds as much, advice), the most telling first. The result's `held` has
    (moment, layer, bytes) of each measurement.
    """
    for moment, most_bytes, words, what, advice in outcome.case["limits"]:
        if moments and moment not in moments:
            continue
        measured = [(part, held) for at, part, held in outcome.results[rank]["held"] if at == moment]
        if not measured:
            raise Wrong(f"{where}: the layer was never called", "Compute with the layer that you were given.")
        for part, held in measured:
            if held > most_bytes:
                seen = f"{where} {words.format(part)} holds {size(held)}"
                raise Wrong(f"{seen}, {what} {size(most_bytes)}", advice)


@grader
def divides_batches(outcome: Outcome) -> None:
    """Each rank runs its share of each batch through the model, in `microbatches` parts; no row is left out."""
    options = dict(outcome.case["options"])
    steps, batch, parts = options["steps"], options["batch"], options.get("microbatches")
    stretches = [stretches_of(outcome, rank, RUN)[0] for rank in range(outcome.ranks)]
    rows = [[s.part for s in spans if s.lane == MARK and s.kind == "rows"] for spans in stretches]
    ran = [sum(own) for own in rows]
    if sum(ran) != steps * batch or max(ran) - min(ran) > steps:
        seen = f"{outcome.at}: the ranks ran {ran} samples through the model; there were {steps * batch} to share out"
        raise Wrong(seen, "They divide each global batch: sizes differ by one at most, and no sample is left out.")
    most = ceil(ceil(batch / outcome.ranks) / (parts or 1))
    for rank, own in enumerate(rows):
        if parts and (len(own) != steps * parts or max(own) > most):
            seen = f"{outcome.at}: rank {rank} called the model with {own} rows; {parts} microbatches"
            advice = "A microbatch bounds the activations held at once; it goes forward and backward by itself."
            raise Wrong(f"{seen} make {steps * parts} calls, of {most} at the most", advice)


@each_rank
def is_silent_within_rounds(outcome: Outcome, rank: int, where: str) -> None:
    """Between two gradients of a round of `every` a rank calls nobody; between two rounds all meet."""
    spans = [s for s in outcome.trace.of(rank) if s.kind == SPAN or s.lane != COMPUTE]
    gradients = [place for place, s in enumerate(spans) if s.kind == SPAN]
    for one, other in pairwise(gradients):
        said, meet = spans[one + 1 : other], spans[other].part % outcome.case["every"] == 0
        which = f"between its gradients {spans[one].part} and {spans[other].part}"
        if said and not meet:
            advice = "Local steps need nobody else; also a barrier makes all wait for the slowest."
            raise Wrong(f"{where} called {said[0].kind} {which}, within a round", advice)
        if meet and not said and outcome.ranks > 1:
            raise Wrong(f"{where} talked to nobody {which}, which are of two rounds")
