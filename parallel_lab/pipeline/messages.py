"""A schedule with its messages: where a pass waits for one of another rank, a send and a receive stand between them.

A schedule says in which order a rank computes. What crosses a cut of the model is one tensor there, the activations,
and one back, their gradients: the send stands right after the pass that makes the tensor, the receive right before the
pass that uses it. Both run on lanes of their own, so a rank computes on while its messages travel, and waits only for
those that it needs.
"""

from functools import partial
from itertools import accumulate, pairwise

from parallel_lab.plan import RECV, SEND, Needs, Op, Plan, collector_paused
from parallel_lab.plan.check import Waits

_new = partial(tuple.__new__, Op)  # half the time of Op(...)


def with_messages(plan: Plan) -> Plan:
    """`plan` with a send and a receive for each need that crosses ranks.

    The `part` of a message is the stage before the cut: activations are the output of that stage, gradients those of
    its output, and `phase` tells `forward` from `backward`. So a number for each part is one for each cut, as in
    `PassCost(message_s=[...])`. A pass needs its receive now, and no longer the pass on the other rank.

    Raises:
        PlanError: A pass needs one that is in no row.
    """
    with collector_paused():
        waits = Waits.of(plan)
        ops, before = waits.ops, waits.before
        ranks = [op.rank for op in ops]
        comes = [[n for n in needs if ranks[n] != rank] for rank, needs in zip(ranks, before, strict=True)]
        goes: list[list[int]] = [[] for _ in ops]  # to which passes of other ranks; `comes` is from which
        for i, crossing in enumerate(comes):
            for need in crossing:
                goes[need].append(i)
        # Where a pass comes to stand, behind its receives; the needs are written with these numbers.
        ends = list(accumulate(len(here) + 1 + len(there) for here, there in zip(comes, goes, strict=True)))
        place = [end - 1 - len(there) for end, there in zip(ends, goes, strict=True)]
        lowered: list[Op] = []
        needs: list[tuple[int, ...]] = []
        for i, (op, here) in enumerate(zip(ops, comes, strict=True)):
            first = len(lowered)
            for need in here:
                lowered.append(_message(RECV, ops[need], op))
                needs.append((place[need] + 1 + goes[need].index(i),))
            lowered.append(op)
            if here:
                needs.append(tuple([first + here.index(n) if n in here else place[n] for n in before[i]]))
            else:
                needs.append(tuple([place[n] for n in before[i]]))
            for to in goes[i]:
                lowered.append(_message(SEND, op, ops[to]))
                needs.append((place[i],))
        ends = [0, *(ends[last - 1] if last else 0 for last in accumulate(map(len, plan.rows)))]  # of the rows
        rows = tuple(tuple(lowered[first:end]) for first, end in pairwise(ends))
        return Plan(rows, Needs(rows, needs))


def _message(lane: str, made: Op, used: Op) -> Op:
    """One end of the message that carries what the pass `made` made to the pass `used`."""
    phase = "forward" if made.kind == "F" else "backward"
    here, there = (made.rank, used.rank) if lane == SEND else (used.rank, made.rank)
    part = made.part if made.part < used.part else used.part
    return _new((here, lane, part, made.mb, there, lane, "", phase, 0))
