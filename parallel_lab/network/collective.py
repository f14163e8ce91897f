"""The price of a collective: bytes, messages and rounds, for each kind and algorithm, as closed forms.

With S the bytes of the whole tensor and n ranks (n_2 the largest power of two up to n, lg n = ceil(log2 n)):

    algorithm          kinds                                     rounds          bytes on the longest path
    ring               all_reduce                                2 (n-1)         2 S (n-1)/n
                       reduce_scatter, all_gather, all_to_all    n-1             S (n-1)/n
                       broadcast, reduce (a chain of n pieces)   2 (n-1)         2 S (n-1)/n
                       gather, scatter (directly)                n-1             S (n-1)/n
                       barrier                                   2 (n-1)         0
    full_mesh          as the ring: one port sends n-1 messages one after another
    relay              all_to_all, round a ring, one way         n-1             S (n-1)/2
    relay_both_ways    the same both ways, through one port      n, or n-1       S n/4, or S (n^2-1)/(4 n) (odd n)
    tree               all_reduce; broadcast, reduce             2 lg n; lg n    2 S lg n; S lg n
    recursive_doubling all_reduce                                log2 n_2        S log2 n_2
                       the same if n is no power of two          log2 n_2 + 2    S (log2 n_2 + 2)
    halving_doubling   all_reduce                                2 log2 n_2      2 S (n_2-1)/n_2
                       the same if n is no power of two          2 log2 n_2 + 3  2 S (n_2-1)/n_2 + 2 S
                       reduce_scatter, all_gather (n = n_2)      log2 n_2        S (n_2-1)/n_2
    star               all_reduce; broadcast, reduce             2 (n-1); n-1    2 (n-1) S; (n-1) S

Patarasuk & Yuan 2009 (ring); Thakur, Rabenseifner & Gropp 2005 (the others, without star and relay). `collectives` has
these algorithms as plans, one per file; a test holds the two against each other. A relay with a link to each neighbor
takes half of the second time. `exchange_cost` is for unequal splits.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from parallel_lab.network.link import Link

COLLECTIVES = frozenset(
    ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "gather", "scatter", "barrier")
)
"""The kinds, as a trace names them."""


class Price(NamedTuple):
    """What one rank pays for a collective."""

    sent_bytes: int  # bytes that leave this rank
    sent_messages: int  # messages that leave it
    rounds: int  # the messages, one after another, on the longest path
    round_bytes: float  # bytes of each of these messages; the mean where they differ

    def seconds(self, link: Link) -> float:
        """The time of the collective over `link`."""
        return self.rounds * link.seconds(self.round_bytes)


def price(kind: str, ranks: int, size_bytes: float, place: int = 0, algorithm: str = "ring") -> Price:
    """What a collective of `ranks` ranks costs the one that stands `place` ranks after the root (or after rank 0).

    `size_bytes` is the whole tensor: of all_gather the output, of reduce_scatter and all_to_all the input, of gather
    and scatter the root's. Where it does not divide, bytes are those of the average rank, rounded down.

    Raises:
        ValueError: There is no such collective, or the algorithm has none of this kind.
    """
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"no such algorithm: {algorithm}; expected one of {', '.join(_ALGORITHMS)}")
    cost, kinds = _ALGORITHMS[algorithm]
    if kinds and kind not in kinds:
        raise ValueError(f"{algorithm} has no {kind}: it has {', '.join(kinds)}")
    return cost(kind, ranks, size_bytes, place)


def ring_cost(kind: str, ranks: int, size_bytes: float, place: int = 0) -> Price:
    """What a built-in collective of PyTorch is charged: its ring, or, where there is no ring, direct messages.

    The arguments are those of `price`.
    """
    others, share = ranks - 1, size_bytes / ranks
    if kind == "all_reduce":  # reduce-scatter, then all-gather
        return Price(int(2 * others * size_bytes // ranks), 2 * others, 2 * others, share)
    if kind in ("reduce_scatter", "all_gather", "all_to_all"):
        return Price(int(others * size_bytes // ranks), others, others, share)
    if kind in ("broadcast", "reduce"):
        # A chain cut in `ranks` pieces: all but the last in the chain pass everything on. A reduce runs to the root.
        last = others if kind == "broadcast" else 0
        return Price(*((0, 0) if place == last else (int(size_bytes), ranks)), 2 * others, share)
    if kind in ("gather", "scatter"):
        sends = (others if place == 0 else 0) if kind == "scatter" else (0 if place == 0 else 1)
        return Price(int(sends * size_bytes // ranks), sends, others, share)
    if kind == "barrier":
        return Price(0, 2 * others, 2 * others, 0)
    raise ValueError(f"no such collective: {kind}")


def exchange_cost(sizes_bytes: Iterable[int]) -> Price:
    """What one rank pays to send, or to receive, messages of these sizes one after another; empty ones are not sent.

    An all-to-all with unequal splits is two of these, one for what leaves the rank and one for what comes in, both at
    the same time. It takes as long as the slower of the two on the slowest rank.
    """
    sizes = [size for size in sizes_bytes if size]
    return Price(sum(sizes), len(sizes), len(sizes), sum(sizes) / max(len(sizes), 1))


def _tree(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    levels = (ranks - 1).bit_length()
    children = sum(place < 1 << level and place + (1 << level) < ranks for level in range(levels))
    return _through_root(kind, size_bytes, place, children, levels)


def _star(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    return _through_root(kind, size_bytes, place, 0 if place else ranks - 1, ranks - 1)


def _through_root(kind: str, size_bytes: float, place: int, children: int, rounds: int) -> Price:
    """Up to the root, down from it, or both: whole tensors, `rounds` each way, to `children` on the way down."""
    up = int(place > 0)
    sends = {"all_reduce": up + children, "broadcast": children, "reduce": up}[kind]
    ways = 2 if kind == "all_reduce" else 1
    return Price(int(sends * size_bytes), sends, ways * rounds, size_bytes)


def _recursive_doubling(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    steps = ranks.bit_length() - 1
    folded = ranks - (1 << steps)  # so many pairs are folded beforehand
    messages = steps if place >= 2 * folded else 1 if place % 2 else steps + 1
    return Price(int(messages * size_bytes), messages, steps + 2 * (folded > 0), size_bytes)


def _relay(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    return _relayed(ranks - 1, size_bytes * (ranks - 1) / 2)


def _relay_both_ways(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    return _relayed(ranks // 2 * 2, size_bytes * (ranks * ranks // 4) / ranks)


def _relayed(messages: int, sent_bytes: float) -> Price:
    return Price(int(sent_bytes), messages, messages, sent_bytes / max(messages, 1))


def _halving_doubling(kind: str, ranks: int, size_bytes: float, place: int) -> Price:
    ways = 2 if kind == "all_reduce" else 1
    steps = ranks.bit_length() - 1
    folded = ranks - (1 << steps)  # so many pairs are folded beforehand
    rounds, path_bytes = ways * steps, ways * size_bytes * (1 - 0.5**steps)
    if not folded:
        return Price(int(path_bytes), rounds, rounds, path_bytes / max(rounds, 1))
    if kind != "all_reduce":
        raise ValueError(f"{kind} by halving_doubling needs a power of two, not {ranks} ranks")
    sent_bytes, messages = path_bytes, rounds
    if place < 2 * folded:
        sent_bytes, messages = (size_bytes, 2) if place % 2 else (path_bytes + 1.5 * size_bytes, rounds + 2)
    return Price(int(sent_bytes), messages, rounds + 3, (path_bytes + 2 * size_bytes) / (rounds + 3))


_ALGORITHMS: dict[str, tuple[Callable[[str, int, float, int], Price], Sequence[str]]] = {
    "ring": (ring_cost, ()),  # of every kind
    "full_mesh": (ring_cost, ("all_reduce", "reduce_scatter", "all_gather", "all_to_all")),
    "tree": (_tree, ("all_reduce", "broadcast", "reduce")),
    "recursive_doubling": (_recursive_doubling, ("all_reduce",)),
    "halving_doubling": (_halving_doubling, ("all_reduce", "reduce_scatter", "all_gather")),
    "star": (_star, ("all_reduce", "broadcast", "reduce")),
    "relay": (_relay, ("all_to_all",)),
    "relay_both_ways": (_relay_both_ways, ("all_to_all",)),
}
