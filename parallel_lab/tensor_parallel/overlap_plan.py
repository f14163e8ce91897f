"""Plans of overlapped products, and the seconds of a pass: when it pays to multiply while parts travel.

The model: messages take nothing from computing but what `loss` says, every rank computes at one speed, and a rank
waits for both at the end of each turn. `simulate` gives the same seconds for the plans.
"""

from parallel_lab.agree.arguments import whole
from parallel_lab.plan import COMPUTE, RECV, SEND, Op, Plan


def all_gather_plan(n: int, *, phase: str = "forward", axis: str = "", overlap: bool = True) -> Plan:
    """The forward pass of `all_gather_linear` and the backward pass of `linear_reduce_scatter`, on n ranks.

    A product's part is the rank whose part it multiplies. Without `overlap` an `all_gather` goes before one product.
    """
    stages = [("all_gather", SEND), ("product", COMPUTE)]
    return _ring_plan(n, 0, phase, axis) if overlap else _plain_plan(n, stages, phase, axis)


def reduce_scatter_plan(n: int, *, phase: str = "forward", axis: str = "", overlap: bool = True) -> Plan:
    """The forward pass of `linear_reduce_scatter` and the backward pass of `all_gather_linear`, on n ranks."""
    stages = [("product", COMPUTE), ("reduce_scatter", SEND)]
    return _ring_plan(n, 1, phase, axis) if overlap else _plain_plan(n, stages, phase, axis)


def _ring_plan(n: int, scatters: int, phase: str, axis: str) -> Plan:
    """A turn has a message each way (none in the first, or in the last) and a product, which run side by side."""
    ops, needs, kind = [], {}, "recv_reduce" if scatters else "recv"
    for rank in range(whole("n", n)):
        before: tuple[Op, ...] = ()  # the product and the arrival of the turn before
        for turn in range(n):
            part = (rank - turn - scatters) % n
            product, both = Op(rank, "product", part, phase=phase), []
            needs[product] = () if scatters else before[1:]
            if 0 <= turn - scatters < n - 1:
                names = {"axis": axis, "phase": phase, "round": turn - scatters}
                leaves = Op(rank, "send", (part + scatters) % n, 0, (rank + 1) % n, SEND, **names)
                comes = Op(rank, kind, (part + scatters - 1) % n, 0, (rank - 1) % n, RECV, **names)
                both = [comes, leaves] if rank % 2 else [leaves, comes]
            needs |= dict.fromkeys(both, before)
            before = (product, *[op for op in both if op.kind == kind])
            ops += [*both, product]
    return Plan.of(ops, needs)


def _plain_plan(n: int, stages: list[tuple[str, str]], phase: str, axis: str) -> Plan:
    """Two stages, one after the other on every rank."""
    both = [
        [Op(rank, kind, 0, 0, -1, lane, axis if lane == SEND else "", phase) for kind, lane in stages]
        for rank in range(whole("n", n))
    ]
    return Plan.of([op for pair in both for op in pair], {second: (first,) for first, second in both})


def seconds(n: int, product_s: float, message_s: float, *, overlap: bool = True, loss: float = 0.0) -> float:
    """Seconds of one pass: a product of `product_s` in all, and n - 1 messages of `message_s`, one after another.

    Plain they follow one another: (n-1) T_S + T_product, T_S the time of a message. With overlap a part takes
    T_part = (1 + loss) T_product/n, and one part stands alone: T_part + (n-1) max(T_S, T_part). `loss` is what n small
    products take longer than a large one, and what communication costs computing (cores, memory bandwidth); measure it.
    If messages are hidden (T_S <= T_part), overlap pays while (n-1) T_S > loss T_product: what is hidden must be more
    than what small products lose. If they are not, it pays while 1 + loss < n.
    """
    if not overlap:
        return (n - 1) * message_s + product_s
    part_s = (1 + loss) * product_s / whole("n", n)
    return part_s + (n - 1) * max(message_s, part_s)
