"""Graders for training with a server: which updates a gradient had seen, how stale it was, and who waited for whom.

A worker's log says at which weights each gradient was computed. From them and the data the kernel computes the
gradients again; the servers say in which order they applied them. Then the weights of every version are known, and
looking up a worker's weights among them gives the version that it had read. No clock is involved, so the verdict on a
run is the same however its events fell.

The first `servers` ranks are servers, each with its slice of the weights. A server returns (its weights, updates), an
update being the rank of a worker, or (worker, staleness).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallel_lab.grading.expectations import ITEM_BYTES, grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.values import name, same
from parallel_lab.grading.workers import SPAN, Hold, gradient_at, make_weights
from parallel_lab.trace import Span
from parallel_lab.trace.units import format_bytes as size

HEADER_BYTES = 128  # a request and its answer may carry some numbers beside weights or gradients
TOLERANCE = 1e-9  # two versions lie 1e-2 apart, two ways of adding 1e-15


class Replay(NamedTuple):
    """What one server did."""

    order: list[int]  # whose gradient each update was
    staleness: list[Any]  # as reported, of each update; empty where none was asked for
    read: dict[int, list[int]]  # for each worker, the version of which its weights were at each of its gradients
    left: tuple[Any, Tensor]  # the weights as returned, and as the updates make them


def slices(outcome: Outcome) -> list[slice]:
    """What each server owns: sizes that differ by one at most, larger ones first, as of `torch.tensor_split`."""
    parts = torch.tensor_split(torch.arange(outcome.case["width"]), outcome.case["servers"])
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


def workers(outcome: Outcome) -> range:
    """The ranks that are no servers."""
    return range(outcome.case["servers"], outcome.ranks)


def replays(outcome: Outcome) -> list[Replay]:
    """What each server did; Wrong if its report and the weights do not fit together."""
    _expect_each_batch(outcome)
    return [_replay(outcome, server, part) for server, part in enumerate(slices(outcome))]


def _expect_each_batch(outcome: Outcome) -> None:
    for rank, count in enumerate(outcome.case["counts"]):
        seen = [batch for batch, _ in outcome.results[rank]["log"]]
        if seen != list(range(count)):
            raise Wrong(
                f"{outcome.at}: rank {rank} computed gradients of its batches {seen}; expected {list(range(count))}",
                "Each worker goes through its own batches, gradient(weights, 0), gradient(weights, 1), ...",
            )


def _replay(outcome: Outcome, server: int, part: slice) -> Replay:
    weights, order, staleness = _reported(outcome, server)
    versions = _versions(outcome, order, part)
    read = {}
    for rank in workers(outcome):
        seen = [_version_of(versions, weights[part]) for _, weights in outcome.results[rank]["log"]]
        if None in seen:
            raise Wrong(
                f"{outcome.at}: rank {rank} computed its gradient {seen.index(None)} at weights that server {server} "
                "never had",
                "Replayed from the updates as reported, in their order. Is each gradient applied alone, once, with the "
                "right step, and reported in the order of application? Do workers use the weights as they came?",
            )
        read[rank] = seen
    return Replay(order, staleness, read, (weights, versions[-1]))


def _reported(outcome: Outcome, server: int) -> tuple[Any, list[int], list[Any]]:
    """What a server returned: weights, whose updates, and how stale each was."""
    result, where = outcome.results[server]["result"], f"{outcome.at}: rank {server}, a server,"
    if type(result) is not list or len(result) != 2 or type(result[1]) is not list:
        raise Wrong(f"{where} returned {name(result)}, expected (its weights, updates)")
    weights, updates = result
    staleness = []
    if outcome.case["reports_staleness"]:
        if any(type(one) is not list or len(one) != 2 for one in updates):
            raise Wrong(f"{where} returned updates {name(updates)}, expected pairs (worker, staleness)")
        updates, staleness = [worker for worker, _ in updates], [stale for _, stale in updates]
    for rank, count in enumerate(outcome.case["counts"]):
        if updates.count(rank) != count:
            raise Wrong(
                f"{where} reports {updates.count(rank)} updates by rank {rank}, which has {count} batches",
                "The server applies every gradient once, and says whose it was.",
            )
    return weights, updates, staleness


def _versions(outcome: Outcome, order: list[int], part: slice) -> list[Tensor]:
    """A slice of the weights before the first update, after it, ...; steps with momentum, as of torch.optim.SGD."""
    case = outcome.case
    waiting = {rank: iter(gradients(outcome, rank)) for rank in set(order)}
    versions, velocity = [make_weights(case["width"])[part]], torch.zeros(part.stop - part.start, dtype=torch.float64)
    for worker in order:
        velocity = case["momentum"] * velocity + next(waiting[worker])[part]
        versions.append(versions[-1] - case["lr"] * velocity)
    return versions


def gradients(outcome: Outcome, rank: int) -> list[Tensor]:
    """The gradients of `rank`, computed again at the weights that it used."""
    inputs, targets = outcome.inputs[rank]
    return [gradient_at(inputs[batch], targets[batch], weights) for batch, weights in outcome.results[rank]["log"]]


def _version_of(versions: Sequence[Tensor], seen: Tensor) -> int | None:
    near = (v for v, weights in enumerate(versions) if bool((weights - seen).abs().max() <= TOLERANCE))
    return next(near, None)


@grader
def applies_each_gradient(outcome: Outcome, advice: str) -> None:
    """Each gradient of each worker is applied once, and the weights are those that the reported updates make."""
    for server, replay in enumerate(replays(outcome)):
        same(*replay.left, f"{outcome.at}: rank {server}", advice, TOLERANCE)


@grader
def reads_own(outcome: Outcome) -> None:
    """Before each gradient a worker has pulled weights that hold its own gradients so far."""
    for replay in replays(outcome):
        for rank, versions in replay.read.items():
            for batch, version in enumerate(versions):
                if (own := replay.order[:version].count(rank)) < batch:
                    seen = f"{outcome.at}: rank {rank} computed its gradient {batch} at weights without its own"
                    raise Wrong(f"{seen} gradient {own}", "A worker pulls the weights again after every push.")


@grader
def reads_within_bound(outcome: Outcome) -> None:
    """At gradient k, all gradients of all workers up to number k - bound - 1 are in the weights."""
    bound = outcome.case["bound"]
    for replay in replays(outcome):
        for rank, versions in replay.read.items():
            for batch, version in enumerate(versions):
                for other, count in enumerate(outcome.case["counts"]):
                    missing = replay.order[:version].count(other)  # the first gradient of `other` not in there
                    if missing < min(batch - bound, count):
                        raise Wrong(
                            f"{outcome.at}: rank {rank} computed its gradient {batch} at weights without gradient "
                            f"{missing} of rank {other}; that lies {batch - missing} back",
                            f"At gradient {batch} all gradients up to {batch - bound - 1} must be in the weights.",
                        )


@grader
def reports_staleness(outcome: Outcome) -> None:
    """The staleness of an update is the number of updates since the weights that its gradient was computed at."""
    for replay in replays(outcome):
        waiting = {rank: iter(enumerate(versions)) for rank, versions in replay.read.items()}
        for number, (worker, told) in enumerate(zip(replay.order, replay.staleness, strict=True)):
            batch, version = next(waiting[worker])
            if type(told) is not int or told != number - version:
                raise Wrong(
                    f"{outcome.at}: update {number} is gradient {batch} of rank {worker}, computed at version "
                    f"{version}: its staleness is {number - version}, and {name(told)} was reported",
                    "Staleness is the number of updates applied since the weights were sent that this gradient was "
                    "computed at.",
                )


@grader
def goes_on(outcome: Outcome, advice: str, waits: str = "") -> None:
    """While a worker is held up, the others do what they may (`advice`), and no more (`waits`)."""
    for hold in outcome.case["holds"]:
        where = f"{outcome.at}: before rank {hold.rank} had finished its gradient {hold.batch}, rank"
        for rank, count in hold.never:
            if (begun := _while_held(outcome, hold, rank)[0]) >= count:
                raise Wrong(f"{where} {rank} had begun {begun}; the bound allows {count - 1}", waits)
        for rank, count in hold.until:
            if (finished := _while_held(outcome, hold, rank)[1]) < count:
                raise Wrong(f"{where} {rank} finished {finished}; nothing keeps it from {count}", advice)


def _while_held(outcome: Outcome, hold: Hold, rank: int) -> tuple[int, int]:
    """How many gradients `rank` had begun, and how many finished, when the held one was finished."""
    end_s = next(s.end_s for s in outcome.trace.of(hold.rank) if s.kind == SPAN and s.part == hold.batch)
    spans = [s for s in outcome.trace.of(rank) if s.kind == SPAN]
    return sum(s.start_s < end_s for s in spans), sum(s.end_s <= end_s for s in spans)


@grader
def exchanges(outcome: Outcome, push: str, pull: str) -> None:
    """Per batch and server a worker sends its gradient's slice and gets the weights'; nothing else travels."""
    servers, first = outcome.case["servers"], outcome.case["pulls_first"]
    for s in outcome.trace.spans:
        if s.kind == "send" and (s.rank < servers) == (s.peer < servers):
            what = "server" if s.rank < servers else "worker"
            raise Wrong(
                f"{outcome.at}: rank {s.rank} sent rank {s.peer} {size(s.bytes)}, {what} to {what} ({s.line})",
                "Workers talk to servers, and servers to workers; nobody else has what they need.",
            )
    for server, part in enumerate(slices(outcome)):
        slice_bytes = (part.stop - part.start) * ITEM_BYTES
        for rank in workers(outcome):
            count = outcome.case["counts"][rank]
            _expect_pair(outcome, (rank, server), (count, count), slice_bytes, push)
            _expect_pair(outcome, (server, rank), (count if first else count - 1, count + 1), slice_bytes, pull)


def _expect_pair(outcome: Outcome, pair: tuple[int, int], counts: tuple[int, int], each: int, advice: str) -> None:
    """Between one rank and another, slices of `each` bytes travel, as many as `counts` allow."""
    sender, receiver = pair
    spans = [s for s in outcome.trace.of(sender) if s.kind == "send" and s.peer == receiver]
    sent, least, most = sum(s.sent_bytes for s in spans), counts[0] * each, counts[1] * (each + HEADER_BYTES)
    if not least <= sent <= most:
        seen = f"{outcome.at}: rank {sender} sent rank {receiver} {size(sent)}; {counts[0]} slices of {size(each)} are"
        hidden = "The data did not travel through the process group."
        raise Wrong(f"{seen} {size(least)}", hidden if sent < least else advice)


@grader
def takes_its_slice(outcome: Outcome) -> None:
    """Each server takes and holds its slice of the weights, and no more; workers take none."""
    parts = slices(outcome)
    for rank, result in enumerate(outcome.results):
        own = [[parts[rank].start, parts[rank].stop]] if rank < len(parts) else []
        if any(one not in own for one in result["taken"]) or (own and not result["taken"]):
            raise Wrong(
                f"{outcome.at}: rank {rank} took the weights {result['taken']}; its slice is {own}",
                "Servers have the weights, one slice each, as torch.tensor_split cuts; a worker pulls them.",
            )
    for rank, part in enumerate(parts):
        slice_bytes = (part.stop - part.start) * ITEM_BYTES
        largest, total = outcome.results[rank]["held"]
        if largest > slice_bytes + HEADER_BYTES:
            raise Wrong(
                f"{outcome.at}: rank {rank} held a tensor of {size(largest)}; its slice is {size(slice_bytes)}",
                "A slice of a tensor keeps the whole tensor alive: copy it.",
            )
        # weights, velocity, two in use, a buffer a worker
        most = (len(workers(outcome)) + 4) * (slice_bytes + HEADER_BYTES)
        if total > most:
            raise Wrong(
                f"{outcome.at}: rank {rank} held tensors of {size(total)}, {size(most)} are plenty for its slice",
                "Weights, momentum, and a buffer for what arrives. What else is kept?",
            )


@grader
def is_silent_within_rounds(outcome: Outcome) -> None:
    """Between two gradients of a round of `every` a rank calls nobody; between two rounds all meet."""
    every = outcome.case["every"]
    for rank in range(outcome.ranks):
        spans = outcome.trace.of(rank)
        at = [place for place, s in enumerate(spans) if s.kind == SPAN]
        for one, other in pairwise(at):
            said: list[Span] = [s for s in spans[one + 1 : other] if s.lane != "compute"]
            which = f"between its gradients {spans[one].part} and {spans[other].part}"
            inside = spans[other].part % every != 0
            if inside and said:
                raise Wrong(
                    f"{outcome.at}: rank {rank} called {said[0].kind} {which}, within a round",
                    "Local steps need nobody else; also a barrier makes all wait for the slowest.",
                )
            if not inside and not said and outcome.ranks > 1:
                raise Wrong(f"{outcome.at}: rank {rank} talked to nobody {which}, which are of two rounds")
