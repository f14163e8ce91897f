"""A network with one kind of link between any two ranks: the alpha-beta model (see `link.py` for sources)."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Self

from parallel_lab.network.charges import Charges, Ranks
from parallel_lab.network.link import Link
from parallel_lab.network.per_op import PerOp
from parallel_lab.plan import Op


@dataclass(frozen=True)
class AlphaBeta(Charges):
    """Every message takes `latency_s + bytes / bytes_per_s`, and a collective what its algorithm makes of that.

    Attributes:
        latency_s: alpha, seconds that a message costs however short it is.
        bytes_per_s: beta, the bandwidth of a rank's link, full in both directions at once.
        part_bytes, compute_s, held_bytes, ranks, algorithm: As in `Charges`.
        gap_s: As in `Link`.
    """

    latency_s: float
    bytes_per_s: float
    part_bytes: PerOp = 0
    compute_s: PerOp = 0.0
    _: KW_ONLY
    held_bytes: PerOp = 0
    ranks: Ranks = None
    algorithm: PerOp = "ring"
    gap_s: float | None = None

    @classmethod
    def over(cls, link: Link, part_bytes: PerOp = 0, compute_s: PerOp = 0.0, **options) -> Self:
        """The same over a `Link`: `AlphaBeta.over(link, bytes, {"F": 1.0, "B": 2.0}, ranks=64)`."""
        return cls(link.latency_s, link.bytes_per_s, part_bytes, compute_s, gap_s=link.gap_s, **options)

    @cached_property
    def _link(self) -> Link:
        return Link(self.latency_s, self.bytes_per_s, self.gap_s)

    def link(self, op: Op) -> Link:
        """The one link."""
        return self._link
