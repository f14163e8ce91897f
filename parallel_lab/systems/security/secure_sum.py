"""Secure aggregation: a server adds up what it cannot read (Bonawitz et al. 2017).

Each pair of parties i < j agrees on a key that the server does not have (X25519). From it both draw the same mask; i
adds it, j subtracts it. In the sum every mask meets its opposite and is gone. Numbers are whole and addition wraps
modulo 2^64, so a masked number looks uniformly random, and the sum of the whole numbers is exact.

*Dropouts.* Where j is gone after the masks were agreed on, its opposite masks are missing. Each party has therefore
given every other a share of its key beforehand (`shamir`), and `threshold` survivors let the server build j's key. A
server that lies could say that j is gone though it has j's row, and read it. So each party adds a second mask, of its
own, whose seed is shared too. Survivors give shares of the second mask of those who are there, and of the key of those
who are gone, and never both of one party. The server would need both, from two sets of `threshold` parties: with
threshold > n / 2 two such sets have a party in common, and each party answers once.

Sent by a party: 8 bytes for each number of its row (4 in plain float32), 32 bytes for its key, and two shares of 66
bytes for each party; a share goes to its holder alone, and comes back once.

What it does not stop. A party that lies about its numbers: the sum takes them, nobody can see whose they were, and a
rule that compares rows (`robust`) is blind here. The sum tells what a sum tells (`inversion`); the sum of all, less the
sum of all but one, is the one. Parties that help the server: `threshold` of them give it everything. Against a server
that also lies about who is there, 2 threshold - n are enough, since they answer both ways (the paper takes threshold >
2 n / 3 against a third of the parties). A server that lies about public keys, unless they are signed, which they are
not here.
"""

import os
from collections.abc import Collection, Mapping

import numpy as np
import torch
import torch.distributed as dist
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from parallel_lab.runtime.group import member
from parallel_lab.systems.security.messages import derive
from parallel_lab.systems.security.shamir import join, split

BITS = 24  # behind the point: a number counts in units of 2^-24
Shares = tuple[int, int]  # of a party's key, and of the seed of its own mask


def to_whole(values: Tensor) -> Tensor:
    """The numbers in units of 2^-24, rounded, int64; over n parties a sum is off by n / 2 units at most.

    The sum must stay below 2^39 in absolute value, or it wraps, and nobody can see it.

    Raises:
        ValueError: a number is not finite, or 2^38 or more in absolute value.
    """
    scaled = values.detach().double() * 2.0**BITS
    if not bool((scaled.abs() < 2.0**62).all()):
        raise ValueError("a number is not finite, or too large for its units")
    return scaled.round().long()


def to_real(whole: Tensor) -> Tensor:
    """The numbers of `to_whole`, float64."""
    return whole.double() / 2.0**BITS


def mask(seed: bytes, count: int) -> Tensor:
    """`count` uniformly random int64 numbers from a seed of 32 bytes: AES in counter mode."""
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
    return torch.from_numpy(np.frombuffer(stream, dtype="<i8").copy())


def pair_seed(private: X25519PrivateKey, public: bytes) -> bytes:
    """The seed that two parties have in common: each makes it of its own private and the other's public key."""
    return derive(private.exchange(X25519PublicKey.from_public_bytes(public)), "parallel_lab secure sum")


def pair_masks(number: int, private: X25519PrivateKey, publics: Mapping[int, bytes], count: int) -> Tensor:
    """The sum of the masks of party `number` with the parties of `publics`: plus with those above it, else minus."""
    total = torch.zeros(count, dtype=torch.int64)
    for other, public in publics.items():
        if other != number:
            drawn = mask(pair_seed(private, public), count)
            total += drawn if number < other else -drawn
    return total


class Party:
    """One of `parties`, with keys for one sum: each sum needs new ones."""

    def __init__(self, number: int, parties: int, threshold: int) -> None:
        """Draws the keys.

        Raises:
            ValueError: `threshold` is at most half of the parties: two sets of so many could be asked apart.
        """
        if not parties / 2 < threshold <= parties:
            raise ValueError(f"a threshold of {threshold} for {parties} parties: expected more than half")
        self.number, self.parties, self.threshold = number, parties, threshold
        self.private, self.seed = X25519PrivateKey.generate(), os.urandom(32)
        self.public = self.private.public_key().public_bytes_raw()
        self.held: dict[int, Shares] = {}  # of the other parties' secrets, by party
        self.told: frozenset[int] | None = None

    def shares(self) -> list[Shares]:
        """For each party, in order, what it is to hold of this one's two secrets."""
        keys, seeds = (
            split(s, self.parties, self.threshold) for s in (self.private.private_bytes_raw(), self.seed)
        )  # fmt: skip
        return [(keys[x], seeds[x]) for x in range(1, self.parties + 1)]

    def masked(self, whole: Tensor, publics: Mapping[int, bytes], own: bool = True) -> Tensor:
        """What the server gets: the numbers and the masks of all pairs; `own` adds the second mask."""
        total = whole + pair_masks(self.number, self.private, publics, len(whole))
        return total + mask(self.seed, len(whole)) if own else total

    def reveal(self, there: Collection[int]) -> dict[int, int]:
        """Its share for each party: of the own mask of those that are `there`, of the key of those that are not.

        Raises:
            ValueError: it was asked before about others, or those that are there are fewer than the threshold.
        """
        now = frozenset(there)
        if len(now) < self.threshold or self.told not in (None, now):
            raise ValueError(f"party {self.number} answers once, about {self.threshold} parties or more that are there")
        self.told = now
        return {other: held[other in now] for other, held in self.held.items()}


def unmask(
    rows: Mapping[int, Tensor], publics: Mapping[int, bytes], revealed: Mapping[int, Mapping[int, int]]
) -> Tensor:
    """The server's part: the sum of the rows that came, less all masks that are left in it.

    Args:
        rows: of each party that is there.
        publics: of all parties that had sent their shares.
        revealed: what each party that is there gave, by party.
    """
    total = torch.stack(list(rows.values())).sum(0)
    for other in publics:
        secret = join({holder + 1: given[other] for holder, given in revealed.items()})
        if other in rows:
            total -= mask(secret, len(total))
        else:
            left = {each: publics[each] for each in rows}
            total += pair_masks(other, X25519PrivateKey.from_private_bytes(secret), left, len(total))
    return total


def all_reduce(values: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """The exact sum over all ranks of the numbers in units of 2^-24, float64, by an all-reduce of masked rows.

    There is no server and nobody may drop out: one mask for each pair, and 32 bytes a rank for the keys.
    """
    group = member(group)
    private = X25519PrivateKey.generate()
    publics: list = [None] * group.size()
    dist.all_gather_object(publics, private.public_key().public_bytes_raw(), group=group)
    total = to_whole(values).cpu().flatten()
    total += pair_masks(group.rank(), private, dict(enumerate(publics)), len(total))
    total = total.to(values.device)
    dist.all_reduce(total, group=group)
    return to_real(total).view(values.shape)


def sum_at_server(
    values: Tensor, *, threshold: int, lost: bool = False, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """One sum of the whole protocol over ranks; rank 0 is the server as well as a party.

    Args:
        values: this rank's numbers, a flat tensor.
        threshold: how many parties have to be there at the end.
        lost: whether this rank is gone after the shares were dealt: its row does not come, and it reveals nothing.
        group: the ranks.

    Returns:
        The sum over the ranks that were not lost; on rank 0 also the rows that the server saw.
    """
    group = member(group)
    rank, n, first = group.rank(), group.size(), dist.get_global_rank(group, 0)
    party = Party(rank, n, threshold)
    publics: list = [None] * n
    dist.all_gather_object(publics, party.public, group=group)
    known = dict(enumerate(publics))
    for other in range(n):  # each deals its shares; a share goes to its holder alone
        got: list = [None]
        dealt = party.shares() if other == rank else None
        dist.scatter_object_list(got, dealt, src=dist.get_global_rank(group, other), group=group)
        party.held[other] = got[0]
    rows = _to_first(None if lost else party.masked(to_whole(values).cpu(), known), group)
    there: list = [sorted(rows)]
    dist.broadcast_object_list(there, src=first, group=group)
    revealed = _to_first(None if lost else party.reveal(there[0]), group)
    total: list = [unmask(rows, known, revealed) if rank == 0 else None]
    dist.broadcast_object_list(total, src=first, group=group)
    return to_real(total[0]), rows


def _to_first(own: object, group: dist.ProcessGroup) -> dict:
    """On rank 0 what each rank gave, without those that gave None; empty on the others."""
    got: list | None = [None] * group.size() if group.rank() == 0 else None
    dist.gather_object(own, got, dst=dist.get_global_rank(group, 0), group=group)
    return {rank: each for rank, each in enumerate(got or []) if each is not None}
