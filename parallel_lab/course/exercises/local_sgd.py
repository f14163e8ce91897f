"""Chapter 04: local SGD, also called federated averaging (McMahan et al. 2017, algorithm 1; Stich 2019).

Each rank takes H steps on its own weights, then all take the average of the weights. The bytes per step are 1/H of
those of synchronous SGD; what is lost is that gradients 2 to H of a round are taken at weights that nobody else has.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from parallel_lab.course import replay
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.mechanism import expect_bytes, expect_travel
from parallel_lab.course.values import name, same
from parallel_lab.course.workers import SPAN, drive, gradient_at, make_weights
from parallel_lab.trace import Span

WIDTH = 60  # divides by 2, 3 and 4
SIZE_BYTES = WIDTH * replay.ITEM_BYTES
LR = 0.5
EVEN = (((6,), 3), ((6, 6), 3), ((6, 6, 6), 2), ((4, 4, 4, 4), 4), ((3, 3), 1))  # (batches of each rank, every)
UNEVEN = (((7, 7), 3), ((7, 5, 2), 3), ((2, 6, 5, 1), 2), ((3, 2), 10))
Copies = list[Tensor]


def _run(fn: Callable, lab: Lab, counts: Sequence[int], every: int) -> Outcome:
    return replay.run(fn, lab, drive, counts, WIDTH, (tuple(counts), every, LR))


def rounds(counts: Sequence[int], every: int) -> Iterator[list[range]]:
    """The batches that each rank works on in each round; a rank that has run out has an empty range."""
    for first in range(0, max(counts), every):
        yield [range(min(first, count), min(first + every, count)) for count in counts]


def simulate(
    outcome: Outcome, counts: Sequence[int], every: int, share: Callable[[range], int] = len
) -> tuple[Copies, list[Copies]]:
    """Local SGD in one process: the final weights of each rank, and those at each of its gradients.

    `share` gives the weight of a rank in an average from its batches of the round; zeros, and there is no average.
    """
    weights: Copies = [make_weights(WIDTH) for _ in counts]
    seen: list[Copies] = [[] for _ in counts]
    for batches in rounds(counts, every):
        for rank, own in enumerate(batches):
            for batch in own:
                seen[rank].append(weights[rank])
                weights[rank] = weights[rank] - LR * _gradient(outcome, rank, batch, weights[rank])
        shares = torch.tensor([share(own) for own in batches], dtype=torch.float64)
        if shares.any():
            weights = [shares @ torch.stack(weights) / shares.sum()] * len(counts)
    return weights, seen


def _gradients_averaged(outcome: Outcome, counts: Sequence[int], every: int) -> Copies:
    """A usual mistake: the last step of each round is one with the average gradient, from different weights."""
    weights: Copies = [make_weights(WIDTH) for _ in counts]
    for batches in rounds(counts, every):
        for rank, own in enumerate(batches):
            for batch in own[:-1]:
                weights[rank] = weights[rank] - LR * _gradient(outcome, rank, batch, weights[rank])
        last = [_gradient(outcome, rank, own[-1], weights[rank]) for rank, own in enumerate(batches) if own]
        step = LR * torch.stack(last).mean(0)
        weights = [one - step for one in weights]
    return weights


def _gradient(outcome: Outcome, rank: int, batch: int, weights: Tensor) -> Tensor:
    inputs, targets = outcome.inputs[rank]
    return gradient_at(inputs[batch], targets[batch], weights)


def _expect_right(outcome: Outcome, counts: Sequence[int], every: int) -> None:
    replay.expect_each_batch(outcome, counts)
    expected, at = simulate(outcome, counts, every)
    where, results = f"{outcome.at}, {list(counts)} batches, every {every}", [one[0] for one in outcome.results]
    if not _near(results, expected):
        _say_which(outcome, counts, every, results, where)
    for rank, result in enumerate(results):
        for (batch, weights), right in zip(replay.log_of(outcome, rank), at[rank], strict=True):
            if not _near([weights], [right]):
                raise Wrong(
                    f"{where}: rank {rank} computed its gradient {batch} at other weights than local SGD has there",
                    "Within a round each rank steps on its own weights; a round begins with the average.",
                )
        same(result, expected[rank], f"{where}: rank {rank}", "Return the weights after the last average.")


def _near(got: Sequence[object], expected: Copies) -> bool:
    try:
        for one, right in zip(got, expected, strict=True):
            same(one, right, "")
    except Wrong:
        return False
    return True


def _say_which(outcome: Outcome, counts: Sequence[int], every: int, results: list, where: str) -> None:
    """Raises `Wrong` if the results are those of a usual mistake."""
    mistakes = {
        "the weights were averaged after every step": simulate(outcome, counts, 1)[0],
        "the weights were never averaged": simulate(outcome, counts, every, lambda own: 0)[0],
        "the weights were averaged only at the end": simulate(outcome, counts, max(counts))[0],
        "the gradients were averaged, not the weights": _gradients_averaged(outcome, counts, every),
        "each rank counted alike, whatever it had done in the round": simulate(outcome, counts, every, lambda own: 1)[
            0
        ],
    }
    for what, weights in mistakes.items():
        if _near(results, weights):
            raise Wrong(
                f"{where}: {what}",
                "After `every` local steps, and once after the last ones, all take the average of the weights, "
                "weighted by the steps of the round.",
            )


def numbers(fn: Callable, lab: Lab) -> None:
    """Every rank returns the weights of local SGD in one process, at 1 to 4 ranks."""
    for counts, every in EVEN:
        _expect_right(_run(fn, lab, counts, every), counts, every)


def uneven(fn: Callable, lab: Lab) -> None:
    """Uneven shares count by the steps taken, a last round may be short, and ranks without batches still join in."""
    for counts, every in UNEVEN:
        _expect_right(_run(fn, lab, counts, every), counts, every)


def fewer_bytes(fn: Callable, lab: Lab) -> None:
    """A rank sends the weights once a round: 1/H of the bytes of synchronous SGD."""
    for counts, every in (*EVEN, *UNEVEN):
        outcome, many = _run(fn, lab, counts, every), len(list(rounds(counts, every)))
        once = 2 * (outcome.ranks - 1) * SIZE_BYTES // outcome.ranks  # a ring all-reduce
        what = f"{many} averages by a ring send"
        advice = "How many averages are there? One all_reduce of the weights each is enough."
        expect_bytes(outcome, lambda rank, most=many * (once + replay.HEADER_BYTES): most, what, advice)
        expect_travel(outcome, lambda rank, least=many * once: least, f"for {many} averages a rank")


def rounds_apart(fn: Callable, lab: Lab) -> None:
    """Within a round nothing is sent and nobody waits; between two rounds all meet."""
    for counts, every in (*EVEN, *UNEVEN):
        outcome = _run(fn, lab, counts, every)
        replay.expect_each_batch(outcome, counts)
        for rank in range(outcome.ranks):
            replay.gradient_spans(outcome, rank)
            _expect_silence(outcome, rank, every)


def _expect_silence(outcome: Outcome, rank: int, every: int) -> None:
    """No message or collective of `rank` may stand in the trace between two gradients of a round."""
    last: Span | None = None
    between: list[Span] = []
    for s in outcome.trace.of(rank):
        if s.kind != SPAN:
            between += [s] * (s.lane != "compute")
            continue
        if last is not None and s.part % every and between:
            raise Wrong(
                f"{outcome.at}, every {every}: rank {rank} called {between[0].kind} between its gradients {last.part} "
                f"and {s.part}, within a round",
                "Local steps need nobody else; also a barrier makes all wait for the slowest.",
            )
        if last is not None and s.part % every == 0 and not between and outcome.ranks > 1:
            raise Wrong(
                f"{outcome.at}, every {every}: rank {rank} talked to nobody between its gradients {last.part} and "
                f"{s.part}, which are of two rounds"
            )
        last, between = s, []


def own_copy(fn: Callable, lab: Lab) -> None:
    """What is returned is a float64 tensor of the weights' shape, the same on all ranks."""
    for counts, every in (*EVEN, *UNEVEN):
        outcome = _run(fn, lab, counts, every)
        results = [outcome.results[rank][0] for rank in range(outcome.ranks)]
        for rank, result in enumerate(results):
            if not isinstance(result, Tensor):
                raise Wrong(f"{outcome.at}: rank {rank} returned {name(result)}, expected the weights")
            same(result, results[0], f"{outcome.at}: rank {rank}", "After the last average all ranks agree.")


EXERCISE = Exercise(
    name="local_sgd",
    title="Local SGD: average the weights every H steps",
    level="easy",
    minutes=25,
    tests=(own_copy, numbers, uneven, rounds_apart, fewer_bytes),
    notebook="04_gradient_synchronization",
)
