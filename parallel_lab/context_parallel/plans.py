"""What one attention over the ranks records, and the simulator times: the plans of the ring and of Ulysses.

In a model the phases of the layers are numbered, `forward`, `forward.1`, and backward in the order in which they come.
"""

from parallel_lab.agree.arguments import whole
from parallel_lab.context_parallel.zigzag import block
from parallel_lab.plan import RECV, SEND, Op, Plan


def ring_plan(n: int, *, causal: bool = True, zigzag: bool = True, phase: str = "forward", axis: str = "") -> Plan:
    """One ring attention, forward or, with `phase="backward"`, backward; a part is the rank whose shard it is.

    A rank attends to a block in each turn, unless it sees nothing there, and sends that shard on meanwhile. Backward it
    begins with a turn that only sends, and each block but its own is followed by the message of a sum, whose phase
    ends in `/sum`.
    """
    backward, ops, needs = phase.startswith("backward"), [], {}
    for rank in range(whole("n", n)):
        shard: tuple[Op, ...] = ()  # the message that brought the shard of this turn
        total: tuple[Op, ...] = ()  # and the sum of its gradients
        work: list[Op] = []  # the block of the turn before: the buffer that it read is received into next
        for turn in range(n + backward):
            owner = (rank - turn) % n
            both = _both(rank, n, owner, turn, "recv", axis, phase) if turn < n - 1 else []
            needs |= dict.fromkeys(both, (*shard, *work))
            ops += both
            work = []
            if (turn or not backward) and block(rank, owner, 2, causal=causal, zigzag=zigzag):
                work = [Op(rank, "attention", owner, phase=phase)]
                needs[work[0]] = shard if turn < n else ()
                ops += work
            if backward and 0 < turn < n:
                sums = _both(rank, n, owner, turn, "recv_reduce", axis, f"{phase}/sum")
                needs |= dict.fromkeys(sums, (*total, *work))
                ops += sums
                total = tuple(op for op in sums if op.kind == "recv_reduce")
            shard = tuple(op for op in both if op.kind == "recv") or shard
    return Plan.of(ops, needs)


def ulysses_plan(n: int, *, phase: str = "forward", axis: str = "") -> Plan:
    """One Ulysses attention: two exchanges, of query, key and value together and of the output, or of gradients."""
    rows = [[Op(rank, "all_to_all", part, lane=SEND, axis=axis, phase=phase) for rank in range(n)] for part in (0, 1)]
    return Plan.of([op for row in rows for op in row], {op: tuple(rows[0]) for op in rows[1]}, ranks=whole("n", n))


def _both(rank: int, n: int, owner: int, turn: int, kind: str, axis: str, phase: str) -> list[Op]:
    """The two messages of a turn, in the order in which the rank issues them."""
    names = {"axis": axis, "phase": phase, "round": turn}
    leaves = Op(rank, "send", owner, 0, (rank + 1) % n, SEND, **names)
    comes = Op(rank, kind, (owner - 1) % n, 0, (rank - 1) % n, RECV, **names)
    return [comes, leaves] if rank % 2 else [leaves, comes]
