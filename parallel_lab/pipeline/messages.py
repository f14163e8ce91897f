"""A schedule with its messages: where a pass waits for one of another rank, a send and a receive stand between them.

A schedule says in which order a rank computes. What crosses a cut of the model is one tensor there, the activations,
and one back, their gradients: the send stands right after the pass that makes the tensor, the receive right before the
pass that uses it. Both run on lanes of their own, so a rank computes on while its messages travel, and waits only for
those that it needs.
"""

from parallel_lab.plan import RECV, SEND, Op, Plan


def with_messages(plan: Plan) -> Plan:
    """`plan` with a send and a receive for each need that crosses ranks.

    The `part` of a message is the stage before the cut: activations are the output of that stage, gradients those of
    its output, and `phase` tells `forward` from `backward`. So a number for each part is one for each cut, as in
    `PassCost(message_s=[...])`. A pass needs its receive now, and no longer the pass on the other rank.
    """
    sends: dict[Op, list[Op]] = {}  # by the pass that makes what they carry
    receives: dict[Op, list[Op]] = {}  # by the pass that uses it
    needs = dict(plan.needs)
    for op, before in plan.needs.items():
        for need in before:
            if need.rank != op.rank:
                sent, received = _message(need, op)
                sends.setdefault(need, []).append(sent)
                receives.setdefault(op, []).append(received)
                needs[op] = tuple(received if one is need else one for one in needs[op])
                needs[sent], needs[received] = (need,), (sent,)
    rows = [[each for op in row for each in (*receives.get(op, ()), op, *sends.get(op, ()))] for row in plan.rows]
    return Plan(tuple(map(tuple, rows)), needs)


def _message(made: Op, used: Op) -> tuple[Op, Op]:
    """The send and the receive that carry what the pass `made` made to the pass `used`."""
    phase = "forward" if made.kind == "F" else "backward"
    part, mb = min(made.part, used.part), made.mb
    sent = Op(made.rank, "send", part, mb, used.rank, SEND, "", phase)
    return sent, Op(used.rank, "recv", part, mb, made.rank, RECV, "", phase)
