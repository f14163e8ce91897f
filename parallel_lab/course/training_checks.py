"""What graders of training exercises look at, in the kernel: traffic between two marks, overlap, shares, bytes held.

Each `expect_*` raises `Wrong` with what was expected and what was seen, at which rank and world size. The marks are
those that a driver leaves in the trace (`course.training.mark`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from parallel_lab.course.lab import Outcome, Wrong
from parallel_lab.course.training import MARK
from parallel_lab.course.values import same
from parallel_lab.trace import Span
from parallel_lab.trace.units import format_bytes as size

ITEM_BYTES = 8  # float64
# Gradients, and weights after some steps, summed in another order: sums of some hundred float64 products, errors of
# 1e-14 and less; a wrong factor of 1.0001 is far outside.
TOLERANCE = 1e-10


def phases(outcome: Outcome, rank: int, first: str = "step", last: str = "step_over") -> list[list[Span]]:
    """The spans of `rank` between each mark `first` and the next mark `last`, marks included, in the order of issue."""
    found: list[list[Span]] = []
    inside = False
    for span in outcome.trace.of(rank):
        if span.lane == MARK and span.kind == first:
            found.append([])
            inside = True
        if inside:
            found[-1].append(span)
        if span.lane == MARK and span.kind == last:
            inside = False
    if not found or inside:
        raise Wrong(f"{outcome.at}: rank {rank}: what the grader noted is gone", "The recorder was stopped or cleared.")
    return found


def marks(spans: Sequence[Span], kind: str) -> list[Span]:
    """The marks of one kind among `spans`."""
    return [s for s in spans if s.lane == MARK and s.kind == kind]


def sent(spans: Sequence[Span]) -> list[Span]:
    """The communication among `spans`."""
    return [s for s in spans if s.lane != MARK and s.sent_messages]


def expect_traffic(
    outcome: Outcome,
    least: float,
    most: float,
    what: str,
    advice: str = "",
    between: tuple[str, str] = ("step", "step_over"),
) -> None:
    """Between the marks each rank may send `most` bytes, and all together must send `least` a rank.

    `what` is who would send them: `an all-gather sends`. One rank may send less than the others: of a star, the root.
    """
    totals = [
        [sum(s.sent_bytes for s in phase) for phase in phases(outcome, r, *between)] for r in range(outcome.ranks)
    ]
    for rank, of_rank in enumerate(totals):
        for number, total in enumerate(of_rank):
            if total > most:
                where = f"{outcome.at}: rank {rank} sent {size(total)} in {between[0]} {number}"
                raise Wrong(f"{where}, {what} {size(most)}", advice)
    for number, total in enumerate(map(sum, zip(*totals, strict=True))):
        if total < outcome.ranks * least:
            seen = f"{outcome.at}: the ranks sent {size(total)} together in {between[0]} {number}; {what}"
            hidden = "The data did not travel through the process group, or its recording was stopped."
            raise Wrong(f"{seen} {size(outcome.ranks * least)} and cannot do with less", hidden)


def expect_overlap(outcome: Outcome, share: float, advice: str = "") -> None:
    """In each step, `share` of the bytes must be on their way while another layer's backward begins.

    Run it over a link so slow that a bucket takes longer than many layers. A collective counts if a mark
    `layer_backward` comes after its issue and before its end: one that was waited for at once has ended by then, and
    one that was issued at the end of backward has no layer after it.
    """
    for rank in range(outcome.ranks):
        for phase in phases(outcome, rank):
            _overlap(phase, f"{outcome.at}: rank {rank}", share, advice)


def _overlap(phase: list[Span], where: str, share: float, advice: str) -> None:
    moved, last = sent(phase), phase[-1]
    # The slot of a span is written at its issue, with no length, and closed when it is over.
    if late := [s for s in moved if s.end_s > last.start_s or s.end_s == s.start_s]:
        seen = f"{where}: backward() returned while {len(late)} {late[0].kind} were still under way"
        raise Wrong(seen, "A gradient may be read as soon as backward() returns: wait for every bucket before.")
    layers = [place for place, s in enumerate(phase) if s.lane == MARK and s.kind == "layer_backward"]
    early = [s for s in moved if layers and phase.index(s) < layers[-1]]
    if not early:
        raise Wrong(
            f"{where}: every {_kind(moved)} was issued after the last layer's backward: nothing overlaps", advice
        )
    beside = [s for s in early if any(p > phase.index(s) and phase[p].start_s < s.end_s for p in layers)]
    total, covered = sum(s.sent_bytes for s in moved), sum(s.sent_bytes for s in beside)
    if covered >= share * total:
        return
    if len(beside) < len(early):
        raise Wrong(
            f"{where}: stood still for {len(early) - len(beside)} of {len(early)} {_kind(early)} that it issued during "
            "backward: no layer's backward began before they were over",
            "Issue it with async_op=True, keep the handle, and wait when backward is over.",
        )
    raise Wrong(
        f"{where}: {covered / total:.0%} of the bytes were under way beside backward, {share:.0%} wanted", advice
    )


def _kind(spans: Sequence[Span]) -> str:
    return spans[0].kind if spans else "collective"


def expect_held(at: str, held: Sequence, most: float, what: str, advice: str = "") -> None:
    """`held`, as of `Notes.held`, must be `most` bytes at the most.

    `at` says where they were held, `what` who would hold as much. If the tensors alone are few enough, the message
    says where the other numbers are.
    """
    held_bytes, hidden_bytes, kind = held
    if held_bytes <= most:
        return
    seen = f"{at} holds {size(held_bytes)}, {what} {size(most)}"
    if held_bytes - hidden_bytes <= most:
        advice = "What is kept counts wherever it lies: the memory of a list or a string is memory too."
        raise Wrong(f"{seen}; {size(hidden_bytes)} of it lie outside tensors, in objects of class {kind}", advice)
    raise Wrong(seen, advice)


def same_tensors(got: object, expected: Sequence[Tensor | None], where: str, what: str, advice: str = "") -> None:
    """Checks that `got` is the list `expected`; `what` names an item: `the gradient of parameter`.

    Raises:
        Wrong: it is not.
    """
    if type(got) is not list or len(got) != len(expected):
        count = len(got) if isinstance(got, list) else "no list of"
        raise Wrong(f"{where}: {count} tensors, expected {len(expected)}", advice)
    for place, (one, right) in enumerate(zip(got, expected, strict=True)):
        if one is None and right is not None:
            raise Wrong(f"{where}: {what} {place} is None", advice)
        same(one, right, f"{where}: {what} {place}", advice, TOLERANCE)


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """D loss / d parameter, zeros where there is no path, for the kernel's own computation."""
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def expect_used(outcome: Outcome, right: Callable[[], None]) -> None:
    """Of a run in which one result was changed on its way: the answer must have come out wrong, so `right()` raises."""
    if outcome.ranks == 1:
        return
    try:
        right()
    except Wrong:
        return
    raise Wrong(
        f"{outcome.at}: the result of a collective was changed on the way, and every rank was still right",
        "The data did not come by the collective; it is for show.",
    )
