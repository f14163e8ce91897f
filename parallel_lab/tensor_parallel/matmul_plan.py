"""The plans of the distributed matrix products: what a recorded product is, and what the simulator times.

A plan is made of the rings of `collectives`, one for each row, column or pile of ranks that a matrix travels along. Its
needs are those of the data: the products of one step may run while the panels of the next travel, as van de Geijn &
Watts have it. `matmul` itself waits for each ring, so that a run shows what the waiting costs.
"""

from collections.abc import Iterator
from math import lcm

from parallel_lab.collectives import ChunkPlan, ring
from parallel_lab.plan import RECEIVING, Op, Plan
from parallel_lab.tensor_parallel.matmul_formulas import ALGORITHMS

Stage = tuple[str, str, ChunkPlan | None, int]
"""A phase, the axis that its messages take, the plan of one ring, and the number of the step; no plan: a product."""


def plan(algorithm: str, i: int = 1, j: int = 1, k: int = 1) -> Plan:
    """`one_d`, `summa`, `two_five_d` or `three_d` on n_rows x n_cols x n_layers ranks.

    Messages have the phase `x`, `w` or `y`; in SUMMA's phases the step follows, `x/2`. A product needs what has come of
    x and w in its step, and the sum of y over the layers needs every product of the rank that sends.

    Raises:
        ValueError: an unknown algorithm, a size below 1, or a grid that the algorithm is not for.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm {algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
    if min(i, j, k) < 1 or (algorithm == "one_d" and j * k > 1) or (algorithm == "summa" and k > 1):
        raise ValueError(f"{algorithm} on {i} x {j} x {k}: sizes are at least 1; one_d has j=k=1, and summa has k=1")
    needs: dict[Op, tuple[Op, ...]] = {}  # in the order of issue
    arrived: dict[int, list[Op]] = {rank: [] for rank in range(i * j * k)}  # what the next product needs
    products: dict[int, list[Op]] = {rank: [] for rank in arrived}
    for phase, axis, one_ring, step in _stages(algorithm, i, j, k):
        if one_ring is None:
            for rank, before in arrived.items():
                products[rank].append(Op(rank, "product", step))
                needs[products[rank][-1]] = tuple(before)
            arrived = {rank: [] for rank in arrived}
            continue
        for op, before in _lines_of(one_ring, _lines(axis, i, j, k), axis, phase):
            needs[op] = (*before, *products[op.rank]) if op.kind == "send" and phase == "y" else before
            if op.kind in RECEIVING:
                arrived[op.rank].append(op)
    return Plan.of(needs, needs)


def _lines_of(one_ring: ChunkPlan, lines: list[range], axis: str, phase: str) -> Iterator[tuple[Op, tuple[Op, ...]]]:
    """The ops of one ring on each line of ranks, and what each needs of its own rank."""
    for ranks in lines:
        moved = {op: _moved(op, ranks, axis, phase) for op in one_ring}
        for op, name in moved.items():
            yield name, tuple(moved[before] for before in one_ring.needs.get(op, ()) if before.rank == op.rank)


def _stages(algorithm: str, i: int, j: int, k: int) -> Iterator[Stage]:
    """What happens one after another on every rank."""
    if algorithm in ("summa", "two_five_d"):
        steps = lcm(i, j)
        for step in range(steps):
            yield f"x/{step}", "j", ring.broadcast_plan(j, step * j // steps), step
            yield f"w/{step}", "i", ring.broadcast_plan(i, step * i // steps), step
            yield "", "", None, step
    else:
        yield "x", "j", ring.all_gather_plan(j), 0
        yield "w", "i", ring.all_gather_plan(i), 0
        yield "", "", None, 0
    yield "y", "k", ring.reduce_scatter_plan(k), 0


def _lines(axis: str, i: int, j: int, k: int) -> list[range]:
    """The ranks of each group along `axis`; rank = (layer n_rows + row) n_cols + column."""
    first, stride, size = {
        "j": (range(0, i * j * k, j), 1, j),
        "i": ([layer * i * j + column for layer in range(k) for column in range(j)], j, i),
        "k": (range(i * j), i * j, k),
    }[axis]
    return [range(start, start + size * stride, stride) for start in first]


def _moved(op: Op, ranks: range, axis: str, phase: str) -> Op:
    """An op of one ring as that of the group `ranks`."""
    return op._replace(rank=ranks[op.rank], peer=ranks[op.peer], axis=axis, phase=phase)
