"""Rows of passes, and what each pass waits for. All schedules share it; they differ only in the order of their rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from parallel_lab.plan import Op, Plan


def numbered(rank: int, order: Iterable[tuple[str, int]], m: int) -> list[Op]:
    """The row of `rank` whose passes come in `order`, each a kind and a stage.

    A pass takes the next microbatch of its kind and stage; a B takes it for both its halves, I and W. Microbatches
    beyond `m` are left out: the order of the others stands, and whatever they wait for is still there.
    """
    row, taken = [], Counter()
    for kind, stage in order:
        halves = "IW" if kind == "B" else kind
        mb = taken[halves[0], stage]
        taken.update((half, stage) for half in halves)
        if mb < m:
            row.append(Op(rank, kind, stage, mb))
    return row


def with_needs(rows: Sequence[Sequence[Op]]) -> Plan:
    """The plan of `rows`, in which every pass waits for what it computes with.

    A forward F of a stage needs the F of the stage before it, of the same microbatch: its activations. A backward B
    (or its first half, I) needs its own F and the backward of the stage after it: its gradients. W, the gradient of the
    weights, needs its own I. The stages are the parts 0 to the highest in `rows`, wherever they live; a need that is in
    no row stays a need, so that `check_plan` can name it.
    """
    plan = Plan(tuple(tuple(row) for row in rows))
    owner = {op.part: op.rank for op in plan}
    split = {(op.part, op.mb) for op in plan if op.kind == "I"}
    last = max(owner, default=0)
    needs: dict[Op, list[Op]] = defaultdict(list)
    for op in plan:
        rank, kind, stage, mb = op[:4]
        if kind == "F" and stage > 0:
            needs[op].append(Op(owner.get(stage - 1, stage - 1), "F", stage - 1, mb))
        if kind in ("B", "I"):
            needs[op].append(Op(rank, "F", stage, mb))
            if stage < last:
                first = "I" if (stage + 1, mb) in split else "B"
                needs[op].append(Op(owner.get(stage + 1, stage + 1), first, stage + 1, mb))
        if kind == "W":
            needs[op].append(Op(rank, "I", stage, mb))
    return Plan(plan.rows, {op: tuple(before) for op, before in needs.items()})


def repeated(plan: Plan, steps: int) -> Plan:
    """`steps` steps of `plan` with no barrier between them: a rank begins the next one when its own row is over.

    Microbatches are counted on, from the first of the first step. A rank changes its weights when its last gradient is
    there, which is before its next forward; what all ranks must know first, such as a global norm, would be a barrier.
    """
    require_positive(steps=steps)
    m = 1 + max((op.mb for op in plan), default=0)
    return with_needs([[op._replace(mb=op.mb + step * m) for step in range(steps) for op in row] for row in plan.rows])


def require_positive(**sizes: int) -> None:
    """Refuses a size below 1 with a ValueError that names it."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: a pipeline needs at least 1")
