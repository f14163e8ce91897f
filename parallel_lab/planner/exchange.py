"""What a collective of an axis costs: its price as everywhere in the course, over the links that its ring goes.

Ranks stand tp innermost, then cp, dp, and pp outermost. The ranks of an axis are `stride` apart. A ring inside a node
goes over the node's links. A ring that leaves it is as slow as the network, and shares the node's cards: of a
node's GPUs each ring takes in one in `stride`, so that as many as min(stride, GPUs of a node) leave it side by side.
Tensor parallelism beyond the node is one ring, which has all cards for itself.

What of a link's bandwidth a collective reaches is a constant that is fitted, for links in the node and between nodes.
"""

from dataclasses import dataclass

from parallel_lab.network import Link, price
from parallel_lab.planner.clusters import Cluster
from parallel_lab.planner.constants import Constants


@dataclass(frozen=True)
class Exchange:
    """Collectives on `cluster`."""

    cluster: Cluster
    constants: Constants

    def seconds(self, kind: str, ranks: int, stride: int, size_bytes: float) -> float:
        """A collective of `ranks` ranks that are `stride` apart; `size_bytes` is the whole tensor, as in `price`."""
        if ranks <= 1 or not size_bytes:
            return 0.0
        if kind == "all_to_all":
            return self._all_to_all_s(ranks, stride, size_bytes)
        return price(kind, ranks, size_bytes).seconds(self.link(ranks, stride))

    def link(self, ranks: int, stride: int) -> Link:
        """The slowest link of a ring of `ranks` ranks that are `stride` apart, with its part of the node's cards."""
        each = self.cluster.gpus_per_node
        if ranks * stride <= each:
            return self.inside
        share = self.between.bytes_per_s * each / min(stride, each)
        return Link(self.between.latency_s, min(share, self.inside.bytes_per_s))

    @property
    def inside(self) -> Link:
        """What a collective reaches in a node."""
        fast = self.cluster.fast
        return Link(fast.latency_s, fast.bytes_per_s * self.constants.fast_share)

    @property
    def between(self) -> Link:
        """What it reaches between nodes, for one accelerator."""
        slow = self.cluster.slow
        return Link(slow.latency_s, slow.bytes_per_s * self.constants.slow_share)

    def message_s(self, stride: int, stages: int, size_bytes: float) -> float:
        """A message to the next stage, `stride` ranks on; all ranks of a node send at once."""
        return self.link(stages, stride).seconds(size_bytes)

    def _all_to_all_s(self, ranks: int, stride: int, size_bytes: float) -> float:
        """Each rank sends the others their part: those of its node over the node's links, the rest over its card."""
        each = self.cluster.gpus_per_node
        near = min(ranks, max(1, each // stride))
        part_bytes = size_bytes / ranks
        inside_s = (near - 1) * self.inside.seconds(part_bytes)
        return (
            inside_s + (ranks - near) * part_bytes / self.between.bytes_per_s + (ranks > near) * self.between.latency_s
        )
