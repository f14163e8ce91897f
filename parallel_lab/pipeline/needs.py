"""What the passes of a pipeline wait for. Shared by all schedules, which differ only in the order of their rows."""

from collections.abc import Iterable, Sequence

from parallel_lab.plan import Op, Plan


def with_needs(rows: Sequence[Sequence[Op]]) -> Plan:
    """The plan of `rows`, in which every pass waits for what it computes with.

    A forward F of a stage needs the F of the stage before it, of the same microbatch: its activations. A backward B
    (or its first half, I) needs its own F and the backward of the stage after it: its gradients. W, the gradient of the
    weights, needs its own I. The stages are the parts 0 to the highest in `rows`, wherever they live; a need that is in
    no row stays a need, so that `check_plan` can name it.
    """
    ops = [op for row in rows for op in row]
    owner = {op.part: op.rank for op in ops}
    split = {(op.part, op.mb) for op in ops if op.kind == "I"}
    last = max(owner, default=0)
    needs = {op: tuple(_needs(op, owner, split, last)) for op in ops}
    return Plan(tuple(tuple(row) for row in rows), {op: before for op, before in needs.items() if before})


def _needs(op: Op, owner: dict[int, int], split: set[tuple[int, int]], last: int) -> Iterable[Op]:
    rank, kind, stage, mb = op[:4]
    if kind == "F" and stage > 0:
        yield Op(owner.get(stage - 1, stage - 1), "F", stage - 1, mb)
    if kind in ("B", "I"):
        yield Op(rank, "F", stage, mb)
        if stage < last:
            yield Op(owner.get(stage + 1, stage + 1), "I" if (stage + 1, mb) in split else "B", stage + 1, mb)
    if kind == "W":
        yield Op(rank, "I", stage, mb)


def require_positive(**sizes: int) -> None:
    """Checks that all sizes are at least 1.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}: a pipeline needs at least 1")
