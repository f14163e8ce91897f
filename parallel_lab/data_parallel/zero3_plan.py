"""The plan of ZeRO, stage 3: what `zero3.py` does on each rank, in the order of issue, and what each step waits for."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

from parallel_lab.plan import COMPUTE, SEND, Op, Plan


def plan(
    n: int,
    units: int,
    *,
    prefetch: int = 1,
    reshard_after_forward: bool = True,
    root: bool = False,
    microbatches: int = 1,
    no_sync: bool = False,
    replicas: int = 1,
    guarded: bool = True,
    axis: str = "",
    replicate_axis: str = "",
) -> Plan:
    """Forward and backward passes of n · `replicas` ranks through a chain of `units`, the root not among them.

    A root has the part `units`. It computes all along, so it has no `F` and no `B`. Rank r is of replica r // n, along
    the first axis of a mesh of two (`replicate_axis`). With `no_sync` all microbatches but the last keep their
    gradients. `guarded`: ranks agree that gradients were finite, by an `all_reduce` of a flag, the part after the last.

    Raises:
        ValueError: a number is too small.
    """
    if min(n, units, microbatches, replicas) < 1 or prefetch < 0:
        raise ValueError(f"{n=}, {units=}, {microbatches=}, {replicas=}, {prefetch=}: expected at least 1, prefetch 0")
    rows, axes = [], (axis, replicate_axis) if replicas > 1 else (axis,)
    for rank, mb in product(range(n * replicas), range(microbatches)):
        gather = partial(Op, rank, "all_gather", mb=mb, lane=SEND, axis=axis)
        rows += [gather(units, phase="forward")] * root
        rows += _pass(Op(rank, "F", 0, mb), range(units), prefetch, "forward", gather)
        again = gather if reshard_after_forward else None
        backward = list(_pass(Op(rank, "B", 0, mb), range(units)[::-1], prefetch, "backward", again))
        rows += _reduced(backward, units, root, axes, guarded) if mb + 1 == microbatches or not no_sync else backward
    return Plan.of(rows, _needs(rows, n), ranks=n * replicas)


def _pass(
    compute: Op, order: Sequence[int], prefetch: int, phase: str, gather: Callable[..., Op] | None
) -> Iterator[Op]:
    """One rank's way through the units, each of which is gathered `prefetch` units ahead."""
    for place, part in enumerate(order):
        if gather:
            for ahead in order[place + prefetch if place else 0 : place + 1 + prefetch]:
                yield gather(ahead, phase=phase)
        yield compute._replace(part=part)


def _reduced(backward: list[Op], units: int, root: bool, axes: Sequence[str], guarded: bool) -> Iterator[Op]:
    """The backward pass with its reductions: a replicated shard's leaves with the gradients of the next unit."""
    previous: list[Op] = []
    for op in [*backward, *[backward[-1]._replace(part=units)] * root]:
        if op.part < units:
            yield op
        if op.kind == "B":
            scatter, *reduce = [op._replace(lane=SEND, axis=axis, phase="backward") for axis in axes]
            yield from [*previous, scatter._replace(kind="reduce_scatter")]
            previous = [each._replace(kind="all_reduce") for each in reduce]
    yield from previous
    flag = backward[-1]._replace(kind="all_reduce", part=units + root, lane=SEND, phase="backward")
    yield from [flag._replace(axis=axes[0] if len(axes) == 1 else "")] * guarded


def _needs(rows: Sequence[Op], n: int) -> dict[Op, list[Op]]:
    """A unit computes when it is gathered. A rank sends what comes after that when it has computed."""
    needs: dict[Op, list[Op]] = {}
    last: dict[tuple, Op] = {}
    for op in rows:
        before = last.get((op.rank, op.part if op.lane == COMPUTE else COMPUTE))
        needs[op] = [before] if before else []
        last[op.rank, op.part if op.kind == "all_gather" else op.lane] = op
    for op in (op for op in rows if op.kind == "reduce_scatter"):
        others = [Op(rank, "B", op.part, op.mb) for rank in range(op.rank // n * n, op.rank // n * n + n)]
        needs[op] += [each for each in others if each in needs and each not in needs[op]]
    return needs
