"""Graders for training with a server: which updates a gradient had seen, how stale it was, and who waited for whom.

A worker says at which weights each gradient was computed, so the kernel can compute it again; a server says in which
order it applied them. Then the weights of every version are known, and looking up a worker's weights among them gives
the version that it had read. No clock is involved: the verdict on a run is the same however its events fell.

The first `servers` ranks are servers, each with its slice of the weights. A server returns (its weights, updates), an
update being the rank of a worker, or (worker, staleness).
"""

from collections import Counter
from collections.abc import Iterator
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallel_lab.grading.expect import each_rank, grader, too_few
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.grading.values import differ, same
from parallel_lab.grading.workers import SPAN, gradient_at, make_weights, may_finish
from parallel_lab.trace.units import format_bytes as size

ITEM_BYTES, HEADER_BYTES = 8, 128  # a request and its answer may carry some numbers beside weights or gradients
BATCHES = "Each worker goes through its own batches, gradient(weights, 0), gradient(weights, 1), ..."


class Replay(NamedTuple):
    """What one server did."""

    weights: Any  # as it returned them
    updates: list[list]  # of each: whose gradient it was, and the staleness reported, None where none was asked for
    versions: list[Tensor]  # the weights before the first update, after it, ..., as the updates make them
    read: dict[tuple[int, int], int]  # for a worker and a number of its gradients, the version that it had read


def slices(outcome: Outcome) -> tuple[Tensor, ...]:
    """The places in the weights that each server owns: as `torch.tensor_split` cuts, larger slices first."""
    return torch.tensor_split(torch.arange(outcome.case["width"]), outcome.case["servers"])


def replays(outcome: Outcome) -> Iterator[Replay]:
    """What each server did; Wrong if its report and the weights do not fit together."""
    for server, part in enumerate(slices(outcome)):
        weights, updates = _reported(outcome, server)
        versions = _versions(outcome, updates, part)
        yield Replay(weights, updates, versions, _read(outcome, server, versions, part))


def _reported(outcome: Outcome, server: int) -> tuple[Any, list[list]]:
    """What a server returned: weights, and whose updates, with their staleness."""
    result = outcome.results[server]["the weights that it returned"]
    where = f"{outcome.at}: rank {server}, a server,"
    if type(result) is not list or len(result) != 2 or type(result[1]) is not list:
        raise Wrong(f"{where} returned {name(result)}, expected (its weights, updates)")
    weights, updates = result
    if not outcome.case.get("reports_staleness"):
        updates = [[worker, None] for worker in updates]
    if any(type(one) is not list or len(one) != 2 for one in updates):
        raise Wrong(f"{where} returned updates {name(updates)}, expected pairs (worker, staleness)")
    for rank, count in enumerate(outcome.case["counts"]):
        batches = outcome.results[rank]["its batches"]
        same(batches, list(range(count)), f"{outcome.at}: rank {rank}, its batches", BATCHES)
        if (told := sum(worker == rank for worker, _ in updates)) != count:
            seen = f"{where} reports {told} updates by rank {rank}, which has {count} batches"
            raise Wrong(seen, "The server applies every gradient once, and says whose it was.")
    return weights, updates


def _versions(outcome: Outcome, updates: list[list], part: Tensor) -> list[Tensor]:
    """A slice of the weights before the first update, after it, ...; steps with momentum, as of torch.optim.SGD."""
    case, asked = outcome.case, [result["the weights at its gradient"] for result in outcome.results]
    gradients = [map(gradient_at, *given, weights) for given, weights in zip(outcome.inputs, asked, strict=True)]
    versions = [make_weights(case["width"])[part]]
    velocity = torch.zeros_like(versions[0])
    for worker, _ in updates:
        velocity = case["momentum"] * velocity + next(gradients[worker])[part]
        versions.append(versions[-1] - case["lr"] * velocity)
    return versions


def _read(outcome: Outcome, server: int, versions: list[Tensor], part: Tensor) -> dict[tuple[int, int], int]:
    """For each worker and gradient the version of which its weights were."""
    read = {}
    for rank, result in enumerate(outcome.results):
        for batch, weights in enumerate(result["the weights at its gradient"]):
            same_as = [version for version, known in enumerate(versions) if not differ(weights[part], known)]
            if not same_as:
                seen = f"rank {rank} computed its gradient {batch} at weights that server {server} never had"
                raise Wrong(
                    f"{outcome.at}: {seen}",
                    "Replayed from the updates as reported. Is each gradient applied alone, once, with the right step, "
                    "and reported in the order of application? Do workers use the weights as they came?",
                )
            read[rank, batch] = same_as[0]
    return read


@grader
def applies_each_gradient(outcome: Outcome, advice: str) -> None:
    """Each gradient of each worker is applied once, and the weights are those that the reported updates make."""
    for server, replay in enumerate(replays(outcome)):
        same(replay.weights, replay.versions[-1], f"{outcome.at}: rank {server}", advice)


@grader
def reads_fresh(outcome: Outcome) -> None:
    """At gradient i, a worker's weights hold its own i gradients before, and all of others but the last `bound`."""
    for replay in replays(outcome):
        for (rank, batch), version in replay.read.items():
            applied = [worker for worker, _ in replay.updates[:version]]
            for other, count in enumerate(outcome.case["counts"]):
                bound = 0 if other == rank else outcome.case.get("bound", inf)
                missing = applied.count(other)  # the first gradient of `other` not in there
                if missing < min(batch - bound, count):
                    whose = "its own gradient {}" if other == rank else "gradient {} of rank {}"
                    raise Wrong(
                        f"{outcome.at}: rank {rank} computed its gradient {batch} at weights without "
                        + whose.format(missing, other),
                        f"All up to gradient {batch - bound - 1} must be in there. Does a worker pull after each push, "
                        "and does a pull wait for the bound?",
                    )


@grader
def reports_staleness(outcome: Outcome) -> None:
    """The staleness of an update is the number of updates since the weights that its gradient was computed at."""
    for replay in replays(outcome):
        applied: Counter = Counter()
        for number, (worker, told) in enumerate(replay.updates):
            batch = applied[worker]
            version = replay.read[worker, batch]
            if type(told) is not int or told != number - version:
                raise Wrong(
                    f"{outcome.at}: update {number} is gradient {batch} of rank {worker}, computed at version "
                    f"{version}: its staleness is {number - version}, and {name(told)} was reported",
                    "Count the updates applied since the weights were sent that this gradient was computed at.",
                )
            applied[worker] += 1


@grader
def goes_on(outcome: Outcome, advice: str, waits: str = "") -> None:
    """While a worker is held up, the others do what they may (`advice`), and no more (`waits`)."""
    gradients = [[s for s in outcome.trace.of(rank) if s.kind == SPAN] for rank in range(outcome.ranks)]
    for slow, batch in outcome.case["held"]:
        end_s = next(s.end_s for s in gradients[slow] if s.part == batch)
        where = f"{outcome.at}: before rank {slow} had finished its gradient {batch}, rank"
        for rank, most in may_finish(outcome.case, batch).items():
            if (begun := sum(s.start_s < end_s for s in gradients[rank])) > most:
                raise Wrong(f"{where} {rank} had begun {begun}; the bound allows {most}", waits)
            if (finished := sum(s.end_s <= end_s for s in gradients[rank])) < most:
                raise Wrong(f"{where} {rank} finished {finished}; nothing keeps it from {most}", advice)


@each_rank
def exchanges(outcome: Outcome, rank: int, where: str, push: str, pull: str) -> None:
    """Per batch and server a worker sends its gradient's slice and gets the weights'; nothing else travels."""
    parts, first = slices(outcome), outcome.case["pulls_first"]
    for peer in range(outcome.ranks):
        sent = sum(s.sent_bytes for s in outcome.trace.of(rank) if s.kind == "send" and s.peer == peer)
        server, worker = sorted((rank, peer))
        least = most = each_bytes = 0
        if server < len(parts) <= worker:
            least = most = outcome.case["counts"][worker]
            each_bytes = ITEM_BYTES * len(parts[server])
            if rank == server:
                least, most = least if first else least - 1, most + 1
        if not least * each_bytes <= sent <= most * (each_bytes + HEADER_BYTES):
            seen = f"{where} sent rank {peer} {size(sent)}; {least} slices of {size(each_bytes)} belong there"
            few = too_few(sent, least * each_bytes)
            raise Wrong(seen, few if sent < least * each_bytes else push if rank >= len(parts) else pull)


@each_rank
def takes_its_slice(outcome: Outcome, rank: int, where: str) -> None:
    """Each server takes and holds its slice of the weights, and no more; workers take none."""
    own, result = slices(outcome)[rank : rank + 1], outcome.results[rank]
    advice = "Servers have the weights, one slice each, as torch.tensor_split cuts; a worker pulls them."
    right = [[int(part[0]), int(part[-1]) + 1] for part in own]
    same(result["taken"], right, f"{where}, taken slice", advice)
    for part in own:
        largest, total = result["held"]
        one = ITEM_BYTES * len(part) + HEADER_BYTES
        many = one * (outcome.ranks - outcome.case["servers"] + 4)  # weights, velocity, two in use, a buffer per worker
        if largest > one or total > many:
            seen = f"{where} held tensors of {size(total)}, one of {size(largest)}"
            advice = "Weights, momentum, and a buffer for what arrives, and no view of more. What else is kept?"
            raise Wrong(f"{seen}; {size(many)} and {size(one)} are plenty for its slice", advice)
