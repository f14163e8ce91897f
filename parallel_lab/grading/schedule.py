"""Graders of the later tasks of chapter 06: in which order layers are gathered, and what travels between nodes.

An all-gather is known by its size: no two layers of a graded chain are of one size.
"""

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from parallel_lab.grading.expect import STEP, each_rank, grader, stretches_of
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.sharding import BACKWARD, FORWARD, chain
from parallel_lab.trace import Span
from parallel_lab.trace.units import format_bytes as size

LETTERS = {"all_gather": "G", "reduce_scatter": "R", FORWARD: "F", BACKWARD: "B"}
LATE = "Start it with async_op=True, compute, and wait for it just before it is used."
ITEM_BYTES = 8


class Event(NamedTuple):
    """A step of a rank: `G2` is the gather of layer 2, R its reduce-scatter, F and B where it computes."""

    name: str
    span: Span


def events(outcome: Outcome, spans: list[Span]) -> list[Event]:
    """What a rank did in a step, in the order of issue."""
    n = outcome.ranks
    part_of = {-(-layer.size // n) * n * ITEM_BYTES: layer.part for layer in chain(outcome.case)}
    found = []
    for s in spans:
        if s.kind in LETTERS:
            part = s.part if s.kind in (FORWARD, BACKWARD) else part_of.get(s.bytes, "?")
            found.append(Event(f"{LETTERS[s.kind]}{part}", s))
    return found


def right_order(layers: int) -> tuple[list[str], list[str]]:
    """Gathers and computing, in forward and in backward, where each gather is issued one layer ahead."""
    forward = ["G0"]
    for part in range(layers):
        forward += [f"G{part + 1}"] * (part + 1 < layers) + [f"F{part}"]
    backward = []
    for part in reversed(range(layers)):
        backward += [f"G{part - 1}"] * (part > 0) + [f"B{part}"]
    return forward, backward


@each_rank
def gathers_ahead(outcome: Outcome, rank: int, where: str, way: str, advice: str) -> None:
    """On the `way`, each gather is issued just before the layer before its own computes, and runs beside it."""
    layers = len(outcome.case["widths"]) - 1
    expected = right_order(layers)[way == "backward"]
    for spans in stretches_of(outcome, rank, STEP):
        step = [event for event in events(outcome, spans) if event.name[0] != "R"]
        forward = 1 + next((place for place, event in enumerate(step) if event.name == f"F{layers - 1}"), len(step))
        order = step[forward:] if way == "backward" else step[:forward]
        _in_order(order, expected, f"{where}: the order of {way}", advice)
        if way == "forward":
            order = order[1:]  # nothing computes before the first layer
        _beside(order, "G", where)


@each_rank
def scatters_behind(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """Each layer's reduce-scatter is issued when its backward is over, and runs beside the next layer's."""
    layers = range(len(outcome.case["widths"]) - 1)
    expected = [letter + str(part) for part in reversed(layers) for letter in "BR"]
    for spans in stretches_of(outcome, rank, STEP):
        step = events(outcome, spans)
        order = [event for event in step if event.name[0] in "BR"]
        _in_order(order, expected, f"{where}: the order of backward", advice)
        _beside(order, "R", where)
        if late := [event.name for event in step if event.span.end_s > spans[-1].start_s]:
            seen = f"{where} returned while {', '.join(late)} was still under way"
            raise Wrong(seen, "What you return must be there: wait for the last ones as well.")


def _in_order(order: list[Event], expected: list[str], what: str, advice: str) -> None:
    seen = [event.name for event in order]
    if seen != expected:
        raise Wrong(f"{what} is {' '.join(seen) or 'empty'}; expected {' '.join(expected)}", advice)


def _beside(order: list[Event], letter: str, where: str) -> None:
    """What begins with `letter` is still under way when the computing after it begins."""
    for one, other in pairwise(order):
        if one.name[0] == letter and one.span.end_s <= other.span.start_s:
            raise Wrong(f"{where}: {one.name} was over before {other.name} began: it hides behind nothing", LATE)


@each_rank
def runs_microbatches(outcome: Outcome, rank: int, where: str) -> None:
    """In each step the model is called once per microbatch."""
    expected = outcome.case["microbatches"]
    for spans in stretches_of(outcome, rank, STEP):
        if (called := sum(s.kind == "rows" for s in spans)) != expected:
            seen = f"{where} called the model {called} times in a step; expected {expected}, once per microbatch"
            raise Wrong(
                seen, "A microbatch bounds the activations held at once; it goes forward and backward by itself."
            )


@each_rank
def computes_once(outcome: Outcome, rank: int, where: str) -> None:
    """In each step each layer computes forward once."""
    for spans in stretches_of(outcome, rank, STEP):
        for part, times in Counter(s.part for s in spans if s.kind == FORWARD).items():
            if times > 1:
                seen = f"{where}: layer {part} computed forward {times} times in a step"
                raise Wrong(
                    f"{seen}; expected once", "What would backward need, if it did not compute the layer again?"
                )


@grader
def crosses(outcome: Outcome, what: str, most_bytes: float, advice: str) -> None:
    """In each of `steps` steps, no node sends more than `most_bytes` to other nodes.

    A collective goes round the ring of its group's members in their order, as `network.ring_cost` has it: what a rank
    sends leaves its node if its successor lies on another.
    """
    steps, per_node = outcome.case["steps"], outcome.case["per_node"]
    left = [0.0] * (outcome.ranks // per_node)
    for s in outcome.trace.spans:
        members = outcome.results[s.rank]["groups"].get(s.group, list(range(outcome.ranks)))
        ring = members[(members.index(s.rank) + 1) % len(members)]
        if (s.peer if s.peer >= 0 else ring) // per_node != s.rank // per_node:
            left[s.rank // per_node] += s.sent_bytes / steps
    if (largest := max(left)) > most_bytes:
        seen = f"{outcome.at}: node {left.index(largest)} sent {size(largest)} per step to other nodes"
        raise Wrong(f"{seen}; {what} {size(most_bytes)}", advice)
