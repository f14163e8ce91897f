"""A plan as one rank's executor needs it. No torch."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from parallel_lab.pipeline.cut import BACKWARD, FORWARD, Cut
from parallel_lab.pipeline.messages import with_messages
from parallel_lab.pipeline.needs import with_needs
from parallel_lab.pipeline.placement import placement
from parallel_lab.plan import SEND, Op, check_plan


@dataclass(frozen=True, eq=False)
class Program:
    """What a rank does, and what it knows of the others.

    Attributes:
        rows: The passes of all ranks.
        row: This rank's.
        ranks: The rank of each stage.
        microbatches: How many there are.
        split: The stages and microbatches whose backward comes in two halves.
        ends: For each stage of this rank its last backward pass, after which gradients are complete.
        last_forward: The last F of the last stage.
        over: For each message to this rank the messages of this rank that its sender must have taken before.
    """

    rows: tuple[tuple[Op, ...], ...]
    row: tuple[Op, ...]
    ranks: list[int]
    microbatches: int
    split: frozenset[tuple[int, int]]
    ends: frozenset[Op]
    last_forward: Op
    over: dict[Cut, list[Cut]]


@lru_cache(32)
def program(rows: tuple[tuple[Op, ...], ...], rank: int) -> Program:
    """The program of `rank` for the passes in `rows`.

    Raises:
        PlanError: the plan cannot be carried out.
        ValueError: it leaves out a pass of some stage and microbatch.
    """
    plan = with_needs(rows)
    ranks, ops = placement(plan), set(plan)
    m = 1 + max((op.mb for op in plan), default=0)
    _check_complete(ops, ranks, m)
    lowered = with_messages(plan)
    check_plan(lowered)
    row = rows[rank] if rank < len(rows) else ()
    split = frozenset((op.part, op.mb) for op in ops if op.kind == "I")
    ends = frozenset({op.part: op for op in row if op.kind in "BW"}.values())
    last = [op for op in rows[ranks[-1]] if op.kind == "F" and op.part == len(ranks) - 1][-1]
    over = {cut: cuts for each in lowered.rows for cut, cuts in _answers(each, rank).items()}
    return Program(rows, row, ranks, m, split, ends, last, over)


def _check_complete(ops: set[Op], ranks: list[int], m: int) -> None:
    for (stage, rank), mb in product(enumerate(ranks), range(m)):
        kinds = {kind for kind in "FBIW" if Op(rank, kind, stage, mb) in ops}
        if kinds not in ({"F", "B"}, {"F", "I", "W"}):
            has = ", ".join(sorted(kinds)) or "nothing"
            raise ValueError(f"stage {stage} has {has} of microbatch {mb}: expected F and B, or F, I and W")


def _answers(row: tuple[Op, ...], rank: int) -> dict[Cut, list[Cut]]:
    """For each message that `row` sends to `rank`, those that it had received from `rank` since the one before."""
    answers, taken = {}, []
    for op in row:
        if op.peer == rank:
            if op.lane == SEND:
                answers[cut_of(op)], taken = taken, []
            else:
                taken.append(cut_of(op))
    return answers


def cut_of(op: Op) -> Cut:
    """The cut that a message crosses, and which way."""
    return Cut(FORWARD if op.phase == "forward" else BACKWARD, op.part, op.mb)
