"""The plan of ZeRO, stage 3: what `zero3.py` does on each rank, in the order of issue, and what each step waits for."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
    """Forward and backward passes of n x `replicas` ranks through a chain of `units`, the root not among them.

    A root has the part `units`. It computes all along, so it has no `F` and no `B`. Rank r is of replica r // n, along
    the first axis of a mesh of two (`replicate_axis`). With `no_sync` all microbatches but the last keep their
    gradients. `guarded`: ranks agree that gradients were finite, by an `all_reduce` of a flag, the part after the last.

    Raises:
        ValueError: a number is too small.
    """
    if min(n, units, microbatches, replicas) < 1 or prefetch < 0:
        raise ValueError(f"{n=}, {units=}, {microbatches=}, {replicas=}, {prefetch=}: expected at least 1, prefetch 0")
    rows: list[Op] = []
    for rank, mb in ((rank, mb) for rank in range(n * replicas) for mb in range(microbatches)):
        wire = partial(Op, rank, mb=mb, lane=SEND)
        gather = partial(wire, "all_gather", axis=axis)
        rows += [gather(units, phase="forward")] * root
        rows += _pass(Op(rank, "F", 0, mb), range(units), prefetch, partial(gather, phase="forward"))
        again = partial(gather, phase="backward") if reshard_after_forward else None
        previous: list[Op] = []  # a replicated shard is all-reduced when the gradients of the next unit leave
        for op in [
            *_pass(Op(rank, "B", 0, mb), range(units)[::-1], prefetch, again),
            *[Op(rank, "B", units, mb)] * root,
        ]:
            rows += [op] * (op.part < units)
            if op.kind == "B" and (mb + 1 == microbatches or not no_sync):
                rows += [*previous, wire("reduce_scatter", op.part, axis=axis, phase="backward")]
                previous = [wire("all_reduce", op.part, axis=replicate_axis, phase="backward")] * (replicas > 1)
        all_ranks = "" if replicas > 1 else axis
        flag = [wire("all_reduce", units + root, axis=all_ranks, phase="backward")] * guarded
        rows += [*previous, *flag] if mb + 1 == microbatches or not no_sync else []
    return Plan.of(rows, _needs(rows, n), ranks=n * replicas)


def _pass(compute: Op, order: Sequence[int], prefetch: int, gather: Callable[[int], Op] | None) -> Iterator[Op]:
    """One rank's way through the units, each of which is gathered `prefetch` units ahead."""
    for place, part in enumerate(order):
        if gather:
            yield from map(gather, order[place + prefetch if place else 0 : place + 1 + prefetch])
        yield compute._replace(part=part)


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
