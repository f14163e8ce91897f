"""What context parallelism sends, holds and computes, in closed form; the tests hold each against a recorded run.

n is the number of ranks, s the tokens of a sequence, b sequences, a query heads, a_kv key-value heads of width d, e
bytes a number. A shard of keys and values has S_KV = 2 b (s/n) a_kv d e bytes. Bytes are those that one rank sends in
one attention.

Sources: Liu et al. 2023 (arXiv 2310.01889), section 3; Jacobs et al. 2023 (arXiv 2309.14509), section 3.2.
"""

from typing import NamedTuple

from parallel_lab.context_parallel.zigzag import block


class Passes(NamedTuple):
    """Bytes that a rank sends in the forward pass and in the backward pass."""

    forward: int
    backward: int


def shard_bytes(batch: int, seq: int, kv_heads: int, head_width: int, n: int, dtype_bytes: int = 4) -> int:
    """S_KV: the keys and values of a rank's tokens."""
    return 2 * batch * _divided(seq, n) * kv_heads * head_width * dtype_bytes


def ring_bytes(shard: int, n: int, dtype_bytes: int = 4) -> Passes:
    """The ring, of shards of `shard` bytes: (n-1) S_KV forward; backward as much, and as much of sums.

    That is 3 (n-1) S_KV in all. Sums of gradients are float32 or wider, so with two bytes a number theirs are
    2 (n-1) S_KV.
    """
    sums = shard * max(4, dtype_bytes) // dtype_bytes
    return Passes((n - 1) * shard, (n - 1) * (shard + sums))


def gather_bytes(shard: int, n: int) -> int:
    """An all-gather of keys and values instead of the ring's forward pass: the same."""
    return (n - 1) * shard


def ring_held_bytes(shard: int, n: int) -> int:
    """Keys and values that the ring's forward pass holds beyond a rank's own: a copy to send and a buffer to receive.

    An all-gather holds n shards.
    """
    return min(n, 2) * shard


def ulysses_bytes(
    batch: int, seq: int, heads: int, kv_heads: int, head_width: int, n: int, dtype_bytes: int = 4
) -> Passes:
    """Ulysses: (n-1)/n of query, key, value and output each way; of fewer key-value heads than ranks, n copies."""
    each_way = (2 * heads + 2 * max(kv_heads, n)) * batch * _divided(seq, n) * head_width * dtype_bytes
    return Passes(*[each_way * (n - 1) // n] * 2)


def visible_pairs(seq: int, rank: int, n: int, *, causal: bool = True, zigzag: bool = True) -> int:
    """The work of a rank in one attention: how many pairs of a query of its own and a key it computes.

    Causal, the r-th rank of neighbors has r (s/n)^2 + s/n (s/n + 1)/2, the last one 2 - 1/n times the mean where s is
    large; a zig-zag gives each s (s+1) / 2n. A block on the diagonal counts its lower triangle.
    """
    halves = 2 if zigzag and n > 1 else 1
    length = _divided(seq, halves * n) * halves
    return sum(block_pairs(rank, owner, length, causal=causal, zigzag=halves > 1) for owner in range(n))


def block_pairs(rank: int, owner: int, length: int, *, causal: bool = True, zigzag: bool = True) -> int:
    """The same of one block: the `length` queries of `rank`, and as many keys of `owner`."""
    part = block(rank, owner, length, causal=causal, zigzag=zigzag)
    if part is None:
        return 0
    rows, keys = (each.stop - each.start for each in (part.rows, part.keys))
    return rows * (rows + 1) // 2 if part.causal else rows * keys


def slowest_over_mean(seq: int, n: int, *, zigzag: bool = True) -> float:
    """How many times the mean work the busiest rank has, in causal attention: 1 for a zig-zag, up to 2 - 1/n without.

    If messages are free, a ring takes that many times as long as one of equal work. Without a zig-zag the last rank has
    a block in each turn, the first of which is its own and half as much work: it never waits, the others do.
    """
    work = [visible_pairs(seq, rank, n, zigzag=zigzag) for rank in range(n)]
    return max(work) * n / sum(work)


def _divided(seq: int, parts: int) -> int:
    if parts < 1 or seq % parts:
        raise ValueError(f"{seq} tokens do not divide into {parts} parts of one length")
    return seq // parts
