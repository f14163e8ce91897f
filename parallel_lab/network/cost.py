"""What the ops of a plan cost: messages by their link, collectives by the link of their axis.

The times are a model's, not a machine's: they say what would happen on hardware as described, and a trace made of them
is marked as simulated.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from parallel_lab.network.collective import COLLECTIVES, Price, exchange_cost, price
from parallel_lab.network.link import Link
from parallel_lab.plan import RECEIVING, Op, Plan

PerOp = float | str | Sequence[Any] | Mapping[str, Any] | Callable[[Op], Any]
"""What holds of an op (its seconds, its bytes, its algorithm): a number (of an algorithm, a name) for all ops; a
sequence with one for each part; a mapping from the axis, or the kind, of an op to any of these; or a function of it."""

Ranks = int | Mapping[str, int] | None
"""How many ranks an axis has: a number for every axis; the mesh as {axis: size}, its slowest axis first, as
`make_mesh` takes it; None for all ranks of the plan."""

MESSAGES = frozenset({"send", *RECEIVING})
"""The kinds that are messages between two ranks."""

COMMUNICATION = MESSAGES | COLLECTIVES


def value(number: PerOp, op: Op) -> Any:
    """What `number` says of `op`."""
    if isinstance(number, (int, float, str)):
        return number
    if callable(number):
        return number(op)
    if not isinstance(number, Mapping):
        return number[op.part]
    for key in (op.axis, op.kind):
        if key in number:
            return value(number[key], op)
    raise ValueError(f"no number for {op}: there is one for {', '.join(map(repr, number))}")


class CostModel:
    """What the simulator asks. A subclass says how many `seconds` an op takes, and what else it knows."""

    def of_plan(self, plan: Plan) -> "CostModel":
        """The model to use for `plan`, for one that must know how many ranks there are."""
        return self

    def seconds(self, op: Op) -> float:
        """How long `op` takes; a message from its start to its arrival, a collective until it is over."""
        raise NotImplementedError

    def occupancy_s(self, op: Op) -> float:
        """How long `op` holds its port: as long as it takes, unless a link has a gap."""
        return self.seconds(op)

    def port(self, op: Op) -> str:
        """What `op` holds of its rank. Ops on one port wait for each other in row order, on different ports not."""
        return op.lane

    def bytes(self, op: Op) -> int:
        """The payload of a message or collective; 0 for computation."""
        return 0

    def held(self, op: Op) -> int:
        """Bytes that the rank holds from the start of `op` on, or, below zero, gives back at its end."""
        return 0

    def price(self, op: Op) -> Price:
        """What a collective costs the rank of `op`."""
        return Price(0, 0, 0, 0)

    def meeting(self, op: Op) -> Hashable:
        """The same for ops of all ranks that are one collective, which starts and ends on all of them together."""
        return op


@dataclass(eq=False)
class Network(CostModel):
    """Prices of messages and collectives; a subclass says with `link(op)` over what they go.

    Attributes:
        part_bytes: The bytes of a message, or of the whole tensor of a collective (see `collective.price`). Of an
            all_to_all it may be the matrix of bytes from each member to each.
        compute_s: Seconds of every other op; `Roofline(...).seconds` and `PassCost(...).seconds` are such functions.
        held_bytes: Bytes that an op takes (positive) or gives back (negative); `PassCost(...).held` is one.
        ranks: How many ranks the axis of a collective has.
        algorithm: The algorithm of the collectives, or one for each axis or kind.
    """

    part_bytes: PerOp = 0
    compute_s: PerOp = 0.0
    held_bytes: PerOp = 0
    ranks: Ranks = None
    algorithm: PerOp = "ring"

    def link(self, op: Op) -> Link:
        """The link that a message or collective takes; of a collective, the slowest of its ring."""
        raise NotImplementedError

    def seconds(self, op: Op) -> float:
        """By the link, or what `compute_s` says."""
        return self._time_s(op, Link.seconds)

    def occupancy_s(self, op: Op) -> float:
        """The same with the occupancy of the link."""
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
        if op.kind == "barrier" or op.kind not in COMMUNICATION:
            return 0
        size = value(self.part_bytes, op)
        return int(size) if isinstance(size, (int, float)) else sum(size[self.place(op)[0]])

    def held(self, op: Op) -> int:
        """What `held_bytes` says."""
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
        """Where the rank of a collective stands on its axis: its position, the distance of neighbors, the ranks."""
        ranks = self.ranks
        if ranks is None:
            raise ValueError(f"{op} has a price only among so many ranks: give `ranks`, or simulate a plan")
        if isinstance(ranks, int) or not op.axis:
            size = ranks if isinstance(ranks, int) else prod(ranks.values())
            return op.rank % size, 1, size
        if op.axis not in ranks:
            raise ValueError(f"{op} runs on axis {op.axis!r}, and `ranks` has {', '.join(map(repr, ranks))}")
        names = list(ranks)
        stride = prod(ranks[name] for name in names[names.index(op.axis) + 1 :])
        return op.rank // stride % ranks[op.axis], stride, ranks[op.axis]

    def meeting(self, op: Op) -> Hashable:
        """The collective as its first rank has it."""
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
        model = copy(self)
        model.ranks = plan.ranks
        return model


class AlphaBeta(Network):
    """One kind of link between any two ranks: every message takes `latency_s + bytes / bytes_per_s` (see `Link`).

    All messages of a rank share its one port. With `own_links` a rank has a port for each peer instead, as in a node
    where each pair of accelerators has a link of its own; messages to different peers then do not wait for each other.
    `options` are `held_bytes`, `ranks` and `algorithm`, as in `Network`.
    """

    def __init__(
        self,
        latency_s: float,
        bytes_per_s: float,
        part_bytes: PerOp = 0,
        compute_s: PerOp = 0.0,
        *,
        gap_s: float | None = None,
        own_links: bool = False,
        **options,
    ) -> None:
        super().__init__(part_bytes, compute_s, **options)
        self._link, self.own_links = Link(latency_s, bytes_per_s, gap_s), own_links

    @classmethod
    def over(cls, link: Link, part_bytes: PerOp = 0, compute_s: PerOp = 0.0, **options) -> Self:
        """The same over a `Link`: `AlphaBeta.over(link, bytes, {"F": 1.0, "B": 2.0}, ranks=64)`."""
        return cls(link.latency_s, link.bytes_per_s, part_bytes, compute_s, gap_s=link.gap_s, **options)

    def link(self, op: Op) -> Link:
        """The one link."""
        return self._link

    def port(self, op: Op) -> str:
        """Its lane, and of a message over a link of its own the peer."""
        return f"{op.lane} {op.peer}" if self.own_links and op.kind in MESSAGES else op.lane


class Topology(Network):
    """Two kinds of link: ranks i and j share a node if i // ranks_per_node == j // ranks_per_node.

    A rank has a port for each kind, and both work at once: tensor parallelism inside the node (`intra`) and data
    parallelism between nodes (`inter`) do not wait for each other. Each rank has its own link to other nodes. A ring
    that leaves a node is as slow as its slowest link. `options` are as in `AlphaBeta`.
    """

    def __init__(
        self, ranks_per_node: int, intra: Link, inter: Link, part_bytes: PerOp = 0, compute_s: PerOp = 0.0, **options
    ) -> None:
        super().__init__(part_bytes, compute_s, **options)
        self.ranks_per_node, self.intra, self.inter = ranks_per_node, intra, inter

    def in_node(self, op: Op) -> bool:
        """Whether a message or collective stays inside one node."""
        first, last = op.rank, op.peer
        if op.kind in COLLECTIVES:
            place, stride, size = self.place(op)
            first = op.rank - place * stride
            last = first + (size - 1) * stride
        return first // self.ranks_per_node == last // self.ranks_per_node

    def link(self, op: Op) -> Link:
        """The link of a message or collective."""
        return self.intra if self.in_node(op) else self.inter

    def port(self, op: Op) -> str:
        """Its lane, and of communication the kind of link."""
        return f"{op.lane} {self.in_node(op)}" if op.kind in COMMUNICATION else op.lane
