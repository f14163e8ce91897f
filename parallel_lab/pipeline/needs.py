"""Rows of passes, and what each pass waits for. All schedules share it; they differ only in the order of their rows."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from parallel_lab.plan import Needs, Op, Plan

_Key = tuple[int, str, int, int]  # rank, kind, stage and microbatch of a pass


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
    plan = Plan(tuple(map(tuple, rows)))
    number = {op[:4]: i for i, op in enumerate(plan)}  # of rank, kind, stage and microbatch
    owner = {op.part: op.rank for op in plan}
    last = max(owner, default=0)
    needs = [_needs_of(op, owner, last, number) for op in plan]
    try:
        return Plan(plan.rows, Needs(plan.rows, [tuple(map(number.__getitem__, each)) for each in needs]))
    except KeyError:  # it stands in no row, and so has no number
        named = (tuple(Op(*need) for need in each) for each in needs)
        return Plan(plan.rows, {op: before for op, before in zip(plan, named, strict=True) if before})


def _needs_of(op: Op, owner: Mapping[int, int], last: int, number: Container[_Key]) -> list[_Key]:
    rank, kind, stage, mb = op[:4]
    if kind == "W":
        return [(rank, "I", stage, mb)]
    if kind == "F":
        return [(owner.get(stage - 1, stage - 1), "F", stage - 1, mb)] if stage > 0 else []
    if kind not in ("B", "I"):
        return []
    needs = [(rank, "F", stage, mb)]
    if stage < last:
        after = owner.get(stage + 1, stage + 1)
        half = (after, "I", stage + 1, mb)
        needs.append(half if half in number else (after, "B", stage + 1, mb))
    return needs


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
