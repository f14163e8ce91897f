"""Whose memory holds whose shard, and which losses leave nothing: `peer.py` without ranks or tensors.

Ranks of one machine are lost together, so a shard's copy stands on another machine: with `machine` ranks on each, the
holder of rank r is the rank in r's place on the machine that is assigned to r's. Wang et al. 2023 (Gemini) compare two
assignments for one copy beside the own:

    ring     machine i sends to machine i + 1. Of the n (n - 1)/2 pairs of machines n leave a shard in no memory.
    pairs    machines 0 and 1 send to each other, 2 and 3, and so on; an odd number ends in a ring of three.
             n/2 pairs of machines leave a shard in no memory (and then both of their shards).

So two machines that are lost at once, any two alike likely, cost the memory's checkpoint with the chance 2/(n - 1) in a
ring of n > 2 machines, and 1/(n - 1) in pairs of an even n. Then what is on the disk counts.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

RING, PAIRS = "ring", "pairs"


def holders(ranks: int, *, machine: int = 1, placement: str = PAIRS) -> list[int]:
    """By rank, the rank whose memory has a copy of its shard.

    Raises:
        ValueError: there is one machine alone, the ranks do not fill the machines, or there is no such placement.
    """
    machines, more = divmod(ranks, machine)
    if machines < 2 or more:
        raise ValueError(f"{ranks} ranks, {machine} on each machine: expected two machines or more, all of them full")
    if placement not in (RING, PAIRS):
        raise ValueError(f"placement={placement!r}: expected {RING!r} or {PAIRS!r}")
    return [_next(rank // machine, machines, placement) * machine + rank % machine for rank in range(ranks)]


def _next(number: int, machines: int, placement: str) -> int:
    """The machine that holds what machine `number` has."""
    paired = 0 if placement == RING else machines if machines % 2 == 0 else machines - 3
    if number < paired:
        return number ^ 1
    return paired + (number - paired + 1) % (machines - paired)


def gone(held_by: Sequence[int], lost: Collection[int]) -> list[int]:
    """The ranks of which no copy is left when all of `lost` are lost at once."""
    return [rank for rank in sorted(lost) if held_by[rank] in lost]


def loss_chance(machines: int, lost: int = 2, *, placement: str = PAIRS) -> float:
    """The chance that `lost` machines, any as likely as any other, leave some shard in no memory; all cases counted."""
    held_by = holders(machines, placement=placement)
    cases = list(combinations(range(machines), lost))
    return sum(bool(gone(held_by, case)) for case in cases) / len(cases)


def held_bytes(own_bytes: int, held_for_bytes: int) -> int:
    """Host memory of a rank: the own copy and the one it holds, each twice; the last stays whole while a new comes."""
    return 2 * (own_bytes + held_for_bytes)
