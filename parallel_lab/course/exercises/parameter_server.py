"""Chapter 05: a sharded parameter server with a bound on staleness (Li et al. 2014; Ho et al. 2013, "SSP").

The weights are cut in one slice a server. A worker pushes each slice of its gradient to the slice's owner and pulls
the weights slice by slice. A gradient may miss the newest updates of others, but none more than `bound` steps back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from parallel_lab.course import replay
from parallel_lab.course.exercise import Exercise
from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.values import name, same
from parallel_lab.course.workers import Hold, drive_server, make_weights
from parallel_lab.trace.units import format_bytes as size

WIDTH = 1001  # two servers own 501 and 500
LR, MOMENTUM = 0.05, 0.9
ANY = 1000  # a bound that never binds
CASES = (  # (servers, batches of each rank, bound)
    (1, (0, 4), 0),
    (1, (0, 4, 5), 0),
    (1, (0, 5, 3, 4), ANY),
    (2, (0, 0, 5, 4), 1),
)
HELD = (  # (servers, batches of each rank, bound, the slow rank)
    (1, (0, 3, 5, 5), 0, 1),
    (2, (0, 0, 7, 3), 2, 3),
)


def _run(
    fn: Callable, lab: Lab, servers: int, counts: Sequence[int], bound: int, holds: Sequence[Hold] = ()
) -> Outcome:
    arguments = (servers, tuple(counts), bound, LR, MOMENTUM)
    return replay.run(fn, lab, drive_server, counts, WIDTH, arguments, holds)


def slices(servers: int) -> list[slice]:
    """What each server owns: sizes that differ by one at most, larger ones first, as of `torch.tensor_split`."""
    parts = torch.tensor_split(torch.arange(WIDTH), servers)
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


def _reported(outcome: Outcome, server: int) -> tuple[Any, Any]:
    result = outcome.results[server][0]
    if type(result) is not list or len(result) != 2:
        raise Wrong(f"{outcome.at}: rank {server}, a server, returned {name(result)}, expected (its weights, updates)")
    return result[0], result[1]


def _versions(outcome: Outcome, order: list[int], part: slice) -> list[Tensor]:
    """A slice of the weights before the first update, after it, ...; steps with momentum, as of torch.optim.SGD."""
    waiting = {rank: iter(replay.gradients(outcome, rank)) for rank in set(order)}
    versions, velocity = [make_weights(WIDTH)[part]], torch.zeros(part.stop - part.start, dtype=torch.float64)
    for worker in order:
        velocity = MOMENTUM * velocity + next(waiting[worker])[part]
        versions.append(versions[-1] - LR * velocity)
    return versions


def _replayed(outcome: Outcome, servers: int, counts: Sequence[int]) -> list[tuple[list[int], dict[int, list[int]]]]:
    """Of each server the order of its updates, and which of its versions each worker read for each gradient."""
    replay.expect_each_batch(outcome, counts)
    replayed = []
    for server, part in enumerate(slices(servers)):
        weights, order = _reported(outcome, server)
        replay.expect_order(outcome, server, order, counts)
        versions, whose = _versions(outcome, order, part), f"server {server}"
        workers = range(servers, outcome.ranks)
        read = {rank: replay.versions_read(outcome, versions, rank, part, whose) for rank in workers}
        advice = "At each push: velocity = momentum * velocity + gradient, then w -= lr * velocity."
        same(weights, versions[-1], f"{outcome.at}: rank {server}", advice, replay.TOLERANCE)
        replayed.append((order, read))
    return replayed


def numbers(fn: Callable, lab: Lab) -> None:
    """Every push is one step with momentum on its slice, with 1 to 3 workers and 1 or 2 servers."""
    for servers, counts, bound in CASES:
        _replayed(_run(fn, lab, servers, counts, bound), servers, counts)


def who_holds_what(fn: Callable, lab: Lab) -> None:
    """Each server takes and holds its slice of the weights, and no more."""
    for servers, counts, bound in CASES:
        outcome = _run(fn, lab, servers, counts, bound)
        _expect_taken(outcome, servers)
        for server, part in enumerate(slices(servers)):
            _expect_held(outcome, server, (part.stop - part.start) * replay.ITEM_BYTES, outcome.ranks - servers)


def _expect_taken(outcome: Outcome, servers: int) -> None:
    """`initial` must have been asked for each slice by its owner, and by nobody else."""
    parts = slices(servers)
    for rank in range(outcome.ranks):
        taken = outcome.results[rank][2]
        if rank >= servers and taken:
            raise Wrong(
                f"{outcome.at}: rank {rank}, a worker, called initial{tuple(taken[0])}",
                "Servers have the weights; a worker pulls them.",
            )
        if rank < servers and not all([parts[rank].start, parts[rank].stop] == one for one in taken):
            listed = ", ".join(f"{a} to {b}" for a, b in taken)
            own = f"{parts[rank].start} to {parts[rank].stop}"
            raise Wrong(
                f"{outcome.at}: rank {rank}, a server, took the weights {listed}; its slice is {own}",
                "Cut the weights evenly, one slice a server; torch.tensor_split tells you how.",
            )
        if rank < servers and not taken:
            raise Wrong(
                f"{outcome.at}: rank {rank}, a server, took no weights; its slice is {parts[rank].start} to "
                f"{parts[rank].stop}",
                "Every server owns a slice.",
            )


def _expect_held(outcome: Outcome, server: int, slice_bytes: int, workers: int) -> None:
    largest, total = outcome.results[server][3]
    if largest > slice_bytes + replay.HEADER_BYTES:
        raise Wrong(
            f"{outcome.at}: rank {server} held a tensor of {size(largest)}; its slice is {size(slice_bytes)}",
            "A slice of a tensor keeps the whole tensor alive: copy it.",
        )
    most = (workers + 4) * (slice_bytes + replay.HEADER_BYTES)  # weights, velocity, two in use, a buffer a worker
    if total > most:
        raise Wrong(
            f"{outcome.at}: rank {server} held tensors of {size(total)}, {size(most)} are plenty for its slice",
            "Weights, momentum, and a buffer for what arrives. What else is kept?",
        )


def reads(fn: Callable, lab: Lab) -> None:
    """A worker pulls after each push, and what it pulls is never further behind than the bound."""
    for servers, counts, bound in CASES:
        _expect_fresh(_run(fn, lab, servers, counts, bound), servers, counts, bound)


def _expect_own(outcome: Outcome, servers: int, counts: Sequence[int]) -> None:
    for order, read in _replayed(outcome, servers, counts):
        for rank, versions in read.items():
            replay.expect_own_gradients(outcome, rank, versions, order)


def _expect_fresh(outcome: Outcome, servers: int, counts: Sequence[int], bound: int) -> None:
    _expect_own(outcome, servers, counts)
    for order, read in _replayed(outcome, servers, counts):
        for rank, versions in read.items():
            for batch, version in enumerate(versions):
                _expect_within(outcome, rank, batch, order[:version], counts, bound)


def _expect_within(outcome: Outcome, rank: int, batch: int, seen: list[int], counts: Sequence[int], bound: int) -> None:
    """The updates in `seen`, which gradient `batch` of `rank` had seen, must hold all that the bound asks for."""
    for other, count in enumerate(counts):
        missing = seen.count(other)  # the number of the first gradient of `other` that is not in the weights
        if missing < min(batch - bound, count):
            raise Wrong(
                f"{outcome.at}: rank {rank} computed its gradient {batch} at weights without gradient {missing} of "
                f"rank {other}; that lies {batch - missing} back, the bound allows {bound}",
                f"At gradient {batch} all gradients up to number {batch - bound - 1} must be in the weights.",
            )


def bound_holds(fn: Callable, lab: Lab) -> None:
    """While a worker is slow, the others go ahead by the bound, and not a step further."""
    for servers, counts, bound in CASES[1:]:  # what is wrong without a slow worker is said first: it costs no time
        outcome = _run(fn, lab, servers, counts, bound)
        replay.forbid_collectives(outcome)
        _expect_own(outcome, servers, counts)
    for servers, counts, bound, slow in HELD:
        fast = [rank for rank in range(servers, len(counts)) if rank != slow]
        ahead = bound + 2  # the slow one has pushed gradient 0 and works on gradient 1
        until, never = (tuple((rank, count) for rank in fast) for count in (ahead, ahead + 1))
        hold = Hold(slow, 1, until, never)
        outcome = _run(fn, lab, servers, counts, bound, (hold,))
        for rank in fast:
            _expect_ahead(outcome, hold, rank, ahead, bound)
        _expect_fresh(outcome, servers, counts, bound)


def _expect_ahead(outcome: Outcome, hold: Hold, rank: int, ahead: int, bound: int) -> None:
    begun, finished = replay.while_held(outcome, hold, rank)
    before = f"{outcome.at}, bound {bound}: before rank {hold.rank} had finished its gradient {hold.batch}, rank {rank}"
    if begun > ahead:
        raise Wrong(
            f"{before} had begun {begun}; the bound allows {ahead}",
            "When must a server keep a pull waiting? Compare the puller's clock with the slowest worker's.",
        )
    if finished < ahead:
        raise Wrong(
            f"{before} finished {finished}; the bound allows {ahead}",
            "It waited although it need not. A worker at clock c may go on while the slowest is at c - bound.",
        )


def messages(fn: Callable, lab: Lab) -> None:
    """A worker pushes a slice to its owner and pulls it from there, once a batch; nothing else travels."""
    for servers, counts, bound in CASES:
        outcome = _run(fn, lab, servers, counts, bound)
        replay.forbid_collectives(outcome)
        for server, part in enumerate(slices(servers)):
            slice_bytes = (part.stop - part.start) * replay.ITEM_BYTES
            most = slice_bytes + 2 * replay.HEADER_BYTES  # the request and the answer may each carry some numbers
            for rank in range(servers, outcome.ranks):
                count, advice = counts[rank], "Each server needs its slice of the gradient, once a batch."
                what = f"{count} pushes of the slice of rank {server}"
                replay.expect_pair(outcome, rank, server, count * slice_bytes, count * most, what, advice)
                advice = "Whose pull is it? Only that worker gets the slice."
                pulls = (count + 1) * most
                what = f"{count} pulls of the slice of rank {server}"
                replay.expect_pair(outcome, server, rank, count * slice_bytes, pulls, what, advice)
        replay.expect_servers_between(outcome, servers)
        replay.expect_received(outcome)


EXERCISE = Exercise(
    name="parameter_server",
    title="A sharded parameter server with bounded staleness",
    level="hard",
    minutes=60,
    tests=(numbers, who_holds_what, messages, reads, bound_holds),
    notebook="05_parameter_server",
)
