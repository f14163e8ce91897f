"""An emulated slower network: the alpha-beta model (Hockney 1994), one full-duplex link a rank.

A message of N bytes takes `latency_s + N / bytes_per_s` and holds the sender's way out and the receiver's way in for
that long; messages of one rank queue. A built-in collective of PyTorch, whose inner messages cannot be seen, is charged
what its ring costs from the moment the last rank has joined (`ring_cost`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Link:
    """A network link.

    Args:
        latency_s: seconds until the first byte of a message arrives (alpha).
        bytes_per_s: bandwidth (1 / beta); infinity for a network that costs latency alone.
    """

    latency_s: float = 0.0
    bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.bytes_per_s > 0):
            raise ValueError(f"{self}: a link has latency_s >= 0 and bytes_per_s > 0")

    def seconds(self, size_bytes: float) -> float:
        """The time one message of `size_bytes` takes."""
        return self.latency_s + size_bytes / self.bytes_per_s


class Cost(NamedTuple):
    """What one rank pays for a collective: bytes and messages that leave it, and rounds of messages one after another,
    each of `round_bytes`."""

    sent_bytes: int
    sent_messages: int
    rounds: int
    round_bytes: float

    def seconds(self, link: Link) -> float:
        """The time of the collective over `link`."""
        return self.rounds * link.seconds(self.round_bytes)


def ring_cost(kind: str, ranks: int, size_bytes: int, place: int = 0) -> Cost:
    """What a built-in collective costs one rank, as its ring (or, where there is no ring, direct) algorithm would.

    Args:
        kind: `all_reduce`, `reduce_scatter`, `all_gather`, `broadcast`, `reduce`, `all_to_all`, `gather`, `scatter` or
            `barrier`.
        size_bytes: the whole tensor: of all_gather the output, of reduce_scatter the input, of gather and scatter the
            root's.
        place: how many ranks after the root this rank stands; the root itself is 0.

    Where `size_bytes` does not divide by `ranks`, bytes are those of the average rank, rounded down.
    """
    others, share = ranks - 1, size_bytes / ranks
    if kind == "all_reduce":  # reduce-scatter, then all-gather (Patarasuk & Yuan 2009)
        return Cost(2 * others * size_bytes // ranks, 2 * others, 2 * others, share)
    if kind in ("reduce_scatter", "all_gather", "all_to_all"):
        return Cost(others * size_bytes // ranks, others, others, share)
    if kind in ("broadcast", "reduce"):
        # A chain cut in `ranks` pieces: all but the last in the chain pass everything on. A reduce runs to the root.
        last = others if kind == "broadcast" else 0
        return Cost(*((0, 0) if place == last else (size_bytes, ranks)), 2 * others, share)
    if kind in ("gather", "scatter"):
        sends = (others if place == 0 else 0) if kind == "scatter" else (0 if place == 0 else 1)
        return Cost(sends * size_bytes // ranks, sends, others, share)
    if kind == "barrier":
        return Cost(0, 2 * others, 2 * others, 0)
    raise ValueError(f"no such collective: {kind}")
