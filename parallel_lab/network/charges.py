"""How a network prices the ops of a plan: messages by their link, collectives by the link of their axis.

`AlphaBeta` and `Topology` differ only in which link an op takes.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from math import prod
from typing import Self

from parallel_lab.network.collective import COLLECTIVES, Price, exchange_cost, price
from parallel_lab.network.link import Link
from parallel_lab.network.per_op import MESSAGES, PerOp, value
from parallel_lab.plan import Op, Plan

Ranks = int | Mapping[str, int] | None
"""How many ranks an axis has: a number for every axis; the mesh as {axis: size}, its slowest axis first, as
`make_mesh` takes it; None for all ranks of the plan."""


class Charges:
    """A cost model of messages and collectives; a subclass says with `link(op)` over what they go.

    Attributes:
        part_bytes: The bytes of a message, or of the whole tensor of a collective (see `collective.price`). Of an
            all_to_all it may be the matrix of bytes from each member to each.
        compute_s: Seconds of every other op; `Roofline(...).seconds` and `PassCost(...).seconds` are such functions.
        held_bytes: Bytes that an op takes (positive) or gives back (negative); `PassCost(...).held` is one.
        ranks: How many ranks the axis of a collective has.
        algorithm: The algorithm of the collectives, or one for each axis or kind.
    """

    part_bytes: PerOp
    compute_s: PerOp
    held_bytes: PerOp
    ranks: Ranks
    algorithm: PerOp

    def link(self, op: Op) -> Link:
        """The link that a message or collective takes; of a collective, the slowest of its ring."""
        raise NotImplementedError

    def seconds(self, op: Op) -> float:
        """Seconds of `op`: of a message until it arrives, of a collective until it is over."""
        return self._time_s(op, Link.seconds)

    def occupancy_s(self, op: Op) -> float:
        """Seconds for which `op` holds its port; as long as it takes, unless the link has a gap."""
        return self._time_s(op, Link.occupancy_s)

    def _time_s(self, op: Op, of_message: Callable[[Link, float], float]) -> float:
        if op.kind in MESSAGES:
            return of_message(self.link(op), value(self.part_bytes, op))
        if op.kind in COLLECTIVES:
            link = self.link(op)
            return max(way.rounds * of_message(link, way.round_bytes) for way in self._ways(op))
        return value(self.compute_s, op)

    def bytes(self, op: Op) -> int:
        """The payload of a message or collective; 0 for computation."""
        if op.kind in MESSAGES:
            return int(value(self.part_bytes, op))
        if op.kind not in COLLECTIVES or op.kind == "barrier":
            return 0
        size = value(self.part_bytes, op)
        return int(size) if isinstance(size, (int, float)) else sum(size[self.place(op)[0]])

    def held(self, op: Op) -> int:
        """Bytes that the rank holds from the start of `op` on, or, below zero, gives back at its end."""
        return value(self.held_bytes, op)

    def price(self, op: Op) -> Price:
        """What a collective costs the rank of `op`, which names its root, if it has one, as `peer`."""
        return self._ways(op)[0]

    def _ways(self, op: Op) -> list[Price]:
        """The price of a collective; of an all_to_all with unequal splits, that of the way out and of the way in."""
        place, _, size = self.place(op)
        part_bytes = value(self.part_bytes, op) if op.kind != "barrier" else 0
        if not isinstance(part_bytes, (int, float)):
            ways = part_bytes[place], [row[place] for row in part_bytes]
            return [exchange_cost(size for peer, size in enumerate(way) if peer != place) for way in ways]
        root = self.place(op._replace(rank=op.peer))[0] if op.peer >= 0 else 0
        return [price(op.kind, size, part_bytes, (place - root) % size, value(self.algorithm, op))]

    def place(self, op: Op) -> tuple[int, int, int]:
        """Where the rank of a collective stands on its axis: its position, the distance of neighbors, the ranks.

        Raises:
            ValueError: The model does not know how many ranks the axis has.
        """
        ranks = self.ranks
        if ranks is None:
            raise ValueError(f"{op} has a price only among so many ranks: give `ranks`, or simulate a plan")
        if isinstance(ranks, int):
            return op.rank % ranks, 1, ranks
        if not op.axis:
            size = prod(ranks.values())
            return op.rank % size, 1, size
        if op.axis not in ranks:
            raise ValueError(f"{op} runs on axis {op.axis!r}, and `ranks` has {', '.join(map(repr, ranks))}")
        names = list(ranks)
        stride = prod(ranks[name] for name in names[names.index(op.axis) + 1 :])
        return op.rank // stride % ranks[op.axis], stride, ranks[op.axis]

    def meeting(self, op: Op) -> Hashable:
        """The same for ops of all ranks that are one collective, which starts and ends on all of them together."""
        place, stride, _ = self.place(op)
        return op._replace(rank=op.rank - place * stride)

    def of_plan(self, plan: Plan) -> Self:
        """This model with `ranks` filled in: all ranks of `plan`.

        Raises:
            ValueError: The collectives of `plan` run on several axes, and `ranks` does not say how long each is.
        """
        if self.ranks is not None:
            return self
        axes = sorted({op.axis for op in plan if op.kind in COLLECTIVES})
        if len(axes) > 1:
            raise ValueError(f"the plan has collectives on the axes {axes}: give their sizes as ranks={{axis: size}}")
        return replace(self, ranks=plan.ranks)  # type: ignore[type-var]
