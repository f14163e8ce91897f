"""Chapter 04: asynchronous SGD through one server (Dean et al. 2012, "Downpour"; Recht et al. 2011 on why it may work).

Whoever finishes a gradient hands it in and goes on at once with the newest weights. Nobody waits for a slow worker; the
price is staleness, the number of updates between the weights a gradient was computed at and those it is applied to.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from parallel_lab.course import replay
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.values import name, same
from parallel_lab.course.workers import Hold, drive, make_weights, squared_loss

WIDTH = 64
SIZE_BYTES = WIDTH * replay.ITEM_BYTES
LR = 0.8  # all updates together, each computed at the initial weights, would still go downhill
COUNTS = ((0, 5), (0, 4, 6), (0, 5, 3, 4))  # batches of each rank; the server has none
HELD = (  # one slow worker, then two
    ((0, 6, 3), (Hold(rank=2, batch=1, until=((1, 6),)),)),
    ((0, 3, 3, 6), tuple(Hold(rank=slow, batch=0, until=((3, 6),)) for slow in (1, 2))),
)


def _run(fn: Callable, lab: Lab, counts: Sequence[int], holds: Sequence[Hold] = ()) -> Outcome:
    return replay.run(fn, lab, drive, counts, WIDTH, (tuple(counts), LR), holds)


def _reported(outcome: Outcome) -> tuple[Any, list[int], list[int]]:
    """What the server returned: weights, whose updates, and how stale each was."""
    result = outcome.results[0][0]
    if type(result) is not list or len(result) != 2:
        raise Wrong(f"{outcome.at}: rank 0 returned {name(result)}, expected (weights, updates)")
    weights, updates = result
    if type(updates) is not list or any(type(one) is not list or len(one) != 2 for one in updates):
        raise Wrong(f"{outcome.at}: rank 0's updates are {name(updates)}, expected pairs (worker, staleness)")
    return weights, [worker for worker, _ in updates], [staleness for _, staleness in updates]


def _versions(outcome: Outcome, order: list[int]) -> list[Tensor]:
    """The weights before the first update, after it, after the second, ..."""
    waiting = {rank: iter(replay.gradients(outcome, rank)) for rank in range(1, outcome.ranks)}
    versions = [make_weights(WIDTH)]
    for worker in order:
        versions.append(versions[-1] - LR * next(waiting[worker]))
    return versions


def _replayed(outcome: Outcome, counts: Sequence[int]) -> tuple[list[int], dict[int, list[int]]]:
    """The order of updates, and for each worker the versions that it read; Wrong if they do not fit the weights."""
    weights, order, _ = _reported(outcome)
    replay.expect_each_batch(outcome, counts)
    replay.expect_order(outcome, 0, order, counts)
    versions = _versions(outcome, order)
    read = {
        rank: replay.versions_read(outcome, versions, rank, slice(None), "the server")
        for rank in range(1, outcome.ranks)
    }
    same(weights, versions[-1], f"{outcome.at}: rank 0", "Each gradient is one step: w -= lr g.", replay.TOLERANCE)
    return order, read


def _expect_staleness(outcome: Outcome, counts: Sequence[int]) -> None:
    order, read = _replayed(outcome, counts)
    waiting = {rank: iter(enumerate(versions)) for rank, versions in read.items()}
    for number, (worker, staleness) in enumerate(zip(order, _reported(outcome)[2], strict=True)):
        batch, version = next(waiting[worker])
        if type(staleness) is not int or staleness != number - version:
            raise Wrong(
                f"{outcome.at}: update {number} is gradient {batch} of rank {worker}, computed at version {version}: "
                f"its staleness is {number - version}, and {name(staleness)} was reported",
                "Staleness is the number of updates applied since the weights were sent that this gradient was "
                "computed at.",
            )


def numbers(fn: Callable, lab: Lab) -> None:
    """Each gradient of each worker is applied, alone and once, as reported, with 1 to 3 workers."""
    for counts in COUNTS:
        _replayed(_run(fn, lab, counts), counts)


def newest_weights(fn: Callable, lab: Lab) -> None:
    """A worker computes at weights that it pulled after its last push."""
    for counts in COUNTS:
        outcome = _run(fn, lab, counts)
        order, read = _replayed(outcome, counts)
        for rank, versions in read.items():
            replay.expect_own_gradients(outcome, rank, versions, order)


def nobody_waits(fn: Callable, lab: Lab) -> None:
    """While slow workers work on one gradient, a fast one finishes all of its own."""
    for counts in COUNTS[1:]:
        outcome = _run(fn, lab, counts)
        replay.forbid_collectives(outcome)
        _replayed(outcome, counts)
    for counts, holds in HELD:
        _expect_free(_run(fn, lab, counts, holds), counts, holds)


def _expect_free(outcome: Outcome, counts: Sequence[int], holds: Sequence[Hold]) -> None:
    replay.forbid_collectives(outcome)
    for hold in holds:
        for fast, wanted in hold.until:
            _, finished = replay.while_held(outcome, hold, fast)
            if finished < wanted:
                raise Wrong(
                    f"{outcome.at}: before rank {hold.rank} had finished its gradient {hold.batch}, rank {fast} "
                    f"finished {finished} of its {counts[fast]}; nothing forced it to wait",
                    f"A synchronous run allows {hold.batch + 1}. Whom does the server listen to, and when does it "
                    "answer?",
                )


def staleness(fn: Callable, lab: Lab) -> None:
    """The staleness reported for each update is the true one, also that of a slow worker."""
    for counts in COUNTS:
        _expect_staleness(_run(fn, lab, counts), counts)
    for counts, holds in HELD:
        outcome = _run(fn, lab, counts, holds)
        _expect_free(outcome, counts, holds)
        _expect_staleness(outcome, counts)


def messages(fn: Callable, lab: Lab) -> None:
    """A worker sends a gradient a batch, and the server answers him alone with weights; nothing else travels."""
    for counts in COUNTS:
        outcome = _run(fn, lab, counts)
        replay.forbid_collectives(outcome)
        most = SIZE_BYTES + replay.HEADER_BYTES
        for rank in range(1, outcome.ranks):
            count, advice = counts[rank], "One gradient a batch goes to the server, and nothing to other workers."
            replay.expect_pair(outcome, rank, 0, count * SIZE_BYTES, count * most, f"{count} gradients", advice)
            advice = "Whose push is it? Only that worker wants weights now; the others have work to do."
            pulls = f"the weights for its {count - 1} later gradients"
            replay.expect_pair(outcome, 0, rank, (count - 1) * SIZE_BYTES, (count + 1) * most, pulls, advice)
        replay.expect_servers_between(outcome, 1)
        replay.expect_received(outcome)


def loss_falls(fn: Callable, lab: Lab) -> None:
    """The loss over all workers' data falls."""
    for counts in COUNTS:
        outcome = _run(fn, lab, counts)
        _replayed(outcome, counts)
        before, after = (_loss(outcome, weights) for weights in (make_weights(WIDTH), _reported(outcome)[0]))
        if not after < before:
            raise Wrong(f"{outcome.at}: the loss went from {before:.4g} to {after:.4g}")


def _loss(outcome: Outcome, weights: Tensor) -> float:
    pairs = [pair for data in outcome.inputs for pair in zip(*data, strict=True)]
    return sum(squared_loss(inputs, targets, weights).item() for inputs, targets in pairs) / len(pairs)


EXERCISE = Exercise(
    name="asynchronous_sgd",
    title="Asynchronous SGD, and how stale its gradients are",
    level="medium",
    minutes=35,
    tests=(numbers, newest_weights, loss_falls, messages, nobody_waits, staleness),
    notebook="04_gradient_synchronization",
)
