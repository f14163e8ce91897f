"""A link between ranks, and what one message over it costs.

A message of k bytes arrives `latency_s + k / bytes_per_s` after it was sent: Hockney's model of 1994, which the field
calls the alpha-beta model. A rank has one full-duplex port, and a message holds the port of its sender on the way out
and that of its receiver on the way in. For how long, `gap_s` says:

- Without a gap a port is held until the message has arrived. Messages of one rank then follow one another.
- With a gap g the port is held for `g + k / bytes_per_s`, so that the next message starts while this one is under way.
  k empty messages back to back take (k - 1) g + latency_s. This is LogP (Culler et al., "LogP: Towards a Realistic
  Model of Parallel Computation", PPoPP 1993), with its byte time for long messages, LogGP (Alexandrov et al.,
  "LogGP: Incorporating Long Messages into the LogP Model", SPAA 1995): latency_s = L + 2 o, gap_s = g,
  bytes_per_s = 1 / G. The overhead o is part of the latency; that it keeps the processor busy is not modeled.

The simulator and `launch(link=...)` know gaps in messages; an emulated collective of PyTorch takes the time of its ring
without one.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A network link.

    Args:
        latency_s: seconds until the first byte of a message arrives (alpha).
        bytes_per_s: bandwidth (1 / beta); infinity for a network that costs latency alone.
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

    def seconds(self, size_bytes: float) -> float:
        """The time from the start of a message of `size_bytes` to its arrival."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def occupancy_s(self, size_bytes: float) -> float:
        """How long a message of `size_bytes` holds the port of its sender, and that of its receiver."""
        return (self.latency_s if self.gap_s is None else self.gap_s) + size_bytes / self.bytes_per_s
