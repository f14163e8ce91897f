"""A link between ranks, and what one message over it costs.

A message of S bytes arrives alpha + S/W after it was sent: `latency_s` + S / `bytes_per_s`. This is Hockney's model of
1994, which the field calls the alpha-beta model, with beta for the time per byte, 1/W. A rank has one full-duplex
port. A message holds the port of its sender on the way out and that of its receiver on the way in. For how long,
`gap_s` says:

- Without a gap a port is held until the message has arrived. The messages of one rank follow one another, and each
  costs its whole latency. That is pessimistic for a rank that talks to many (a star, a full mesh): much of a latency
  is wire, switches and queues, where messages overlap.
- With a gap the port is held for gap + S/W, so that the next message starts while this one is under way. Of messages
  back to back, the first arrives after alpha + S/W, and each of the others gap + S/W later. This is LogP (Culler et
  al., "LogP: Towards a Realistic Model of Parallel Computation", PPoPP 1993) with a time per byte for long messages,
  LogGP (Alexandrov et al., "LogGP: Incorporating Long Messages into the LogP Model", SPAA 1995): alpha is LogP's
  latency and twice its overhead, and 1/W is LogGP's gap per byte. The overhead is part of the latency here; that it
  keeps the processor busy is not modeled.

Which of the two holds is a rule that whoever makes the link chooses. The simulator and the emulated link follow it, so
neither can test it. Both know gaps in messages; an emulated collective of PyTorch takes the time of its ring without
one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A network link.

    Args:
        latency_s: seconds until the first byte of a message arrives (alpha).
        bytes_per_s: bandwidth in one direction (W); infinity for a network that costs latency alone.
        gap_s: seconds for which a message of no bytes holds a port (LogP's g); None for the whole of `latency_s`.

    Raises:
        ValueError: A number is negative, or the bandwidth is zero.
    """

    latency_s: float = 0.0
    bytes_per_s: float = math.inf
    gap_s: float | None = None

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.bytes_per_s > 0 and (self.gap_s is None or self.gap_s >= 0)):
            raise ValueError(f"{self}: a link has latency_s >= 0, bytes_per_s > 0 and gap_s >= 0 (or None)")

    def among(self, ranks: Iterable[int]) -> "Link":
        """The link between `ranks`: this one, whoever they are."""
        return self

    def seconds(self, size_bytes: float) -> float:
        """The time from the start of a message of `size_bytes` to its arrival."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def occupancy_s(self, size_bytes: float) -> float:
        """How long a message of `size_bytes` holds the port of its sender, and that of its receiver."""
        return (self.latency_s if self.gap_s is None else self.gap_s) + size_bytes / self.bytes_per_s


@dataclass(frozen=True)
class Nodes:
    """Two kinds of link for `launch`, which says on which node each rank is: `Nodes((0, 0, 1, 1), fast, slow)`.

    A rank has a port for each kind, as in the simulator's `Topology`. A collective takes the link `between` nodes if
    its group does not lie in one node: its ring is as slow as its slowest link.

    Args:
        node_of: the node of each rank, in the order of ranks.
        inside: the link inside a node.
        between: the link of each rank to ranks of other nodes.
    """

    node_of: tuple[int, ...]
    inside: Link
    between: Link

    def among(self, ranks: Iterable[int]) -> Link:
        """The link that a message between two ranks or a collective among `ranks` takes.

        Raises:
            ValueError: a rank has no node.
        """
        ranks = tuple(ranks)
        if max(ranks) >= len(self.node_of):
            raise ValueError(f"node_of names the nodes of {len(self.node_of)} ranks, and there is a rank {max(ranks)}")
        return self.inside if len({self.node_of[rank] for rank in ranks}) == 1 else self.between
