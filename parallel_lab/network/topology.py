"""A network with two kinds of link: a fast one inside a node, a slow one between nodes."""

from dataclasses import KW_ONLY, dataclass

from parallel_lab.network.charges import Charges, Ranks
from parallel_lab.network.collective import COLLECTIVES
from parallel_lab.network.link import Link
from parallel_lab.network.per_op import MESSAGES, PerOp
from parallel_lab.plan import Op


@dataclass(frozen=True)
class Topology(Charges):
    """Ranks r and s share a node if r // ranks_per_node == s // ranks_per_node.

    A rank has a port for each kind of link, and both work at once: tensor parallelism inside the node and data
    parallelism between nodes do not wait for each other. A ring that leaves a node is as slow as its slowest link.

    Attributes:
        ranks_per_node: Ranks that a fast link joins, numbered in a row.
        intra: The link inside a node, a `Link`.
        inter: The link between nodes. Each rank has its own: ranks of a node do not share it.
        part_bytes, compute_s, held_bytes, ranks, algorithm: As in `Charges`.
    """

    ranks_per_node: int
    intra: Link
    inter: Link
    part_bytes: PerOp = 0
    compute_s: PerOp = 0.0
    _: KW_ONLY
    held_bytes: PerOp = 0
    ranks: Ranks = None
    algorithm: PerOp = "ring"

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
        """What `op` shares with the ops that it waits for: its lane, and the kind of link."""
        if op.kind in MESSAGES or op.kind in COLLECTIVES:
            return f"{op.lane} {'intra' if self.in_node(op) else 'inter'}"
        return op.lane
