"""Binomial tree: few rounds, whole tensors; the choice for short messages from one rank, or to one.

Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19 (2005),
section 4, on broadcast and reduce.

In round i of a broadcast every rank that has the tensor sends it to one that has not, 2^i places further on; the number
of those that have it doubles in each round. A reduce is the same tree run backwards, each parent adding what its
children send. An all-reduce is a reduce followed by a broadcast. At a power of two it has twice the rounds of
`recursive_doubling`, and above two ranks fewer bytes in all.

With S the bytes of the tensor, lg n = ceil(log2 n), place = (rank - root) mod n, children those of a rank: as many as
there are i with place < 2^i and place + 2^i < n:

| plan       | bytes sent per rank                 | messages per rank             | rounds |
|------------|-------------------------------------|-------------------------------|--------|
| broadcast  | S children; the root sends S lg n   | children                      | lg n   |
| reduce     | S, and 0 at the root                | 1, and 0 at the root          | lg n   |
| all_reduce | S (children + 1), the root's S lg n | children + 1, the root's lg n | 2 lg n |

All ranks together send (n-1) S in a broadcast, which is the least possible; but the root's link carries S lg n of them.
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves


def broadcast_plan(n: int, root: int = 0) -> ChunkPlan:
    """Every rank ends with root's tensor."""
    return assemble(n, _down(n, root), leaves(1))


def reduce_plan(n: int, root: int = 0) -> ChunkPlan:
    """Root ends with the sum; what the others hold is a partial sum."""
    return assemble(n, _up(n, root), leaves(1), ahead=0)


def all_reduce_plan(n: int, root: int = 0) -> ChunkPlan:
    """A reduce to root, then a broadcast from it."""
    return assemble(n, [*_up(n, root), *_down(n, root, first=depth(n))], leaves(1), ahead=0)


def depth(n: int) -> int:
    """The rounds of a binomial tree of n ranks: ceil(log2 n)."""
    return (n - 1).bit_length()


def _edges(n: int, root: int) -> Iterator[tuple[int, int, int]]:
    """Level, parent and child, from the root downwards."""
    for level in range(depth(n)):
        for place in range(min(1 << level, n - (1 << level))):
            yield level, (root + place) % n, (root + place + (1 << level)) % n


def _down(n: int, root: int, first: int = 0) -> Iterator[Message]:
    for level, parent, child in _edges(n, root):
        yield Message(first + level, parent, child, part=0)


def _up(n: int, root: int) -> Iterator[Message]:
    for level, parent, child in _edges(n, root):
        yield Message(depth(n) - 1 - level, child, parent, part=0, reduce=True)
