"""What the graders of chapters 04 and 05 share in the kernel: which updates a gradient had seen, and who waited.

A worker's log says at which weights each gradient was computed. From them and the data the kernel computes the
gradients again; the servers say in which order they applied them. Then the weights of every version are known, and
looking up a worker's weights among them gives the version that it had read. No clock is involved, so the verdict on a
run is the same however its events fell.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from parallel_lab.course.lab import Lab, Outcome, Wrong
from parallel_lab.course.mechanism import forbid
from parallel_lab.course.sources import uses
from parallel_lab.course.values import name
from parallel_lab.course.workers import SPAN, Hold, gradient_at, regression
from parallel_lab.trace import Span
from parallel_lab.trace.units import format_bytes as size

ITEM_BYTES = 8  # float64
HEADER_BYTES = 64  # a message may carry some numbers beside weights or gradients
TOLERANCE = 1e-9  # two versions lie 1e-2 apart, two ways of adding 1e-15


def run(
    fn: Callable,
    lab: Lab,
    drive: Callable,
    counts: Sequence[int],
    width: int,
    arguments: tuple,
    holds: Sequence[Hold] = (),
) -> Outcome:
    """The learner's function under `drive` (see `workers`); rank r has `counts[r]` batches of `width` features.

    On the CPU: gloo receives from any source only there.
    """
    if said := uses(fn, "torch.nn.parallel"):
        raise Wrong(said, "The exercise is to build it.")
    make = partial(regression, counts=tuple(counts), size=width)
    driven = partial(drive, fn, arguments=arguments, holds=tuple(holds))
    return lab.run(driven, len(counts), make, key=(tuple(counts), arguments, tuple(holds)), device="cpu")


def log_of(outcome: Outcome, rank: int) -> list:
    """[batch, weights] of each gradient that `rank` computed, in order."""
    return outcome.results[rank][1]


def expect_each_batch(outcome: Outcome, counts: Sequence[int]) -> None:
    """Each rank must have computed the gradient of each of its batches once, in order."""
    for rank, count in enumerate(counts):
        seen = [batch for batch, _ in log_of(outcome, rank)]
        if seen != list(range(count)):
            listed = ", ".join(map(str, seen)) or "none"
            wanted = f"0 to {count - 1}, each once" if count else "none: it has no data"
            raise Wrong(
                f"{outcome.at}: rank {rank} computed gradients of its batches {listed}; expected {wanted}",
                "Each worker goes through its own batches, gradient(weights, 0), gradient(weights, 1), ...",
            )


def gradients(outcome: Outcome, rank: int) -> list[Tensor]:
    """The gradients of `rank`, computed again at the weights that it used."""
    inputs, targets = outcome.inputs[rank]
    return [gradient_at(inputs[batch], targets[batch], weights) for batch, weights in log_of(outcome, rank)]


def expect_order(outcome: Outcome, server: int, order: Any, counts: Sequence[int]) -> None:
    """`order`, the ranks whose gradients `server` says it applied, must name each worker as often as it has batches."""
    if type(order) is not list or any(type(rank) is not int for rank in order):
        raise Wrong(f"{outcome.at}: rank {server} returned {name(order)} for its updates, expected a list of integers")
    for rank, count in enumerate(counts):
        if order.count(rank) != count:
            raise Wrong(
                f"{outcome.at}: rank {server} reports {order.count(rank)} updates by rank {rank}, which has {count} "
                "batches",
                "The server applies every gradient once, and says whose it was.",
            )
    if len(order) != sum(counts):
        raise Wrong(f"{outcome.at}: rank {server} reports {len(order)} updates, expected {sum(counts)}")


def version_of(versions: Sequence[Tensor], seen: Tensor) -> int | None:
    """Which of `versions` equals `seen`; None if none does."""
    near = (v for v, weights in enumerate(versions) if bool((weights - seen).abs().max() <= TOLERANCE))
    return next(near, None)


def versions_read(outcome: Outcome, versions: Sequence[Tensor], rank: int, part: slice, whose: str) -> list[int]:
    """For each gradient of `rank` the version of which its weights, cut to `part`, are; Wrong if they are of none."""
    read = []
    for batch, weights in log_of(outcome, rank):
        version = version_of(versions, weights[part])
        if version is None:
            raise Wrong(
                f"{outcome.at}: rank {rank} computed its gradient {batch} at weights that {whose} never had",
                "Replayed from the updates as reported, in their order. Is each gradient applied alone, once, with the "
                "right step, and reported in the order of application? Do workers use the weights as they came?",
            )
        read.append(version)
    return read


def expect_own_gradients(outcome: Outcome, rank: int, read: Sequence[int], order: Sequence[int]) -> None:
    """Before each gradient a worker must have pulled weights that hold its own gradients so far."""
    for batch, version in enumerate(read):
        if order[:version].count(rank) < batch:
            raise Wrong(
                f"{outcome.at}: rank {rank} computed its gradient {batch} at weights without its own gradient "
                f"{order[:version].count(rank)}",
                "A worker pulls the weights again after every push.",
            )


def gradient_spans(outcome: Outcome, rank: int) -> list[Span]:
    """The gradients of `rank` in the trace. Wrong if it lacks some: the recorder was stopped."""
    spans = [s for s in outcome.trace.of(rank) if s.kind == SPAN]
    if len(spans) != len(log_of(outcome, rank)):
        raise Wrong(f"{outcome.at}: rank {rank} computed gradients that are not in the trace", "Leave the recorder on.")
    return spans


def while_held(outcome: Outcome, hold: Hold, rank: int) -> tuple[int, int]:
    """How many gradients `rank` had begun, and how many finished, when the held one was finished."""
    end_s = next(s.end_s for s in gradient_spans(outcome, hold.rank) if s.part == hold.batch)
    spans = gradient_spans(outcome, rank)
    return sum(s.start_s < end_s for s in spans), sum(s.end_s <= end_s for s in spans)


def forbid_collectives(outcome: Outcome) -> None:
    """No collective: in each one, every rank waits for the slowest."""
    forbid(outcome, advice="In a collective every rank waits for the slowest. Send to the one rank that needs it.")


def expect_pair(outcome: Outcome, sender: int, receiver: int, least: int, most: int, what: str, advice: str) -> None:
    """Between `least` and `most` bytes may go from one rank to the other; `what` names them in the message."""
    spans = [s for s in outcome.trace.of(sender) if s.kind == "send" and s.peer == receiver]
    sent = sum(s.sent_bytes for s in spans)
    if sent < least:
        raise Wrong(
            f"{outcome.at}: rank {sender} sent rank {receiver} {size(sent)} by messages; {what} are {size(least)}",
            "The data did not travel through the process group, or its recording was stopped.",
        )
    if sent > most:
        raise Wrong(
            f"{outcome.at}: rank {sender} sent rank {receiver} {size(sent)}; {what} are {size(least)}",
            advice,
        )


def expect_received(outcome: Outcome) -> None:
    """What was sent to a rank must have been received there, byte for byte; the source may be any."""
    for rank in range(outcome.ranks):
        arrived = sum(s.bytes for s in outcome.trace.of(rank) if s.kind == "recv")
        sent = sum(s.sent_bytes for s in outcome.trace.spans if s.kind == "send" and s.peer == rank)
        if sent != arrived:
            raise Wrong(
                f"{outcome.at}: {size(sent)} were sent to rank {rank}, and {size(arrived)} were received there",
                "Every send needs one receive of the same size, and the recorder must see both.",
            )


def expect_servers_between(outcome: Outcome, servers: int) -> None:
    """Each message must go from a worker to a server, or back."""
    for s in outcome.trace.spans:
        if s.kind == "send" and (s.rank < servers) == (s.peer < servers):
            what = "server" if s.rank < servers else "worker"
            raise Wrong(
                f"{outcome.at}: rank {s.rank} sent rank {s.peer} {size(s.bytes)}, {what} to {what} ({s.line})",
                "Workers talk to servers, and servers to workers; nobody else has what they need.",
            )
