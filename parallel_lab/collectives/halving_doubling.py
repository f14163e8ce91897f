"""Recursive halving and doubling: the ring's bytes in 2 log2(n) messages.

Rabenseifner, "Optimization of collective reduction operations", ICCS 2004; Thakur, Rabenseifner & Gropp
(2005), section 4.

Reduce-scatter by halving: in each round a rank and its partner split what they are both responsible for; each sends
the half that it gives up and adds what it gets to the half that it keeps, so the message halves each round. All-gather
by doubling runs the same pairs backwards, and the message doubles. When n is no power of two, let n_2 be the largest
power of two below it: the first 2 (n - n_2) ranks are folded in pairs beforehand; the even one of a pair takes part for
both, the odd one gets the result at the end.

There are two orders of the partners, with the same messages, bytes and rounds:

- *near first*: partners are 1 rank apart, then 2, 4, ... Halves stay between neighbors, and what goes farthest is
  S/n_2. It is the order of MPICH's all-reduce, and the default here, because neighbors share a node: with n_i ranks in
  each of n_e nodes (both powers of two), a rank sends 2 S (n_e-1)/n to other nodes, which is what it sends in
  `hierarchical`.
- *far first*: partners are n_2/2 ranks apart, then n_2/4, ... Halves go farthest: n_i times as many bytes leave a node.
  Rank r ends the reduce-scatter with leaf r; near first leaves it the leaf whose number is r with its bits read
  backwards. So a reduce-scatter or an all-gather by itself, which promises leaf r to rank r, is far first.

With S the bytes of the tensor, and n_2 = n where n is a power of two:

| plan                 | bytes sent per rank                          | messages per rank | rounds         |
|----------------------|----------------------------------------------|-------------------|----------------|
| reduce_scatter (n_2) | S (n_2-1)/n_2                                | log2 n_2          | log2 n_2       |
| all_gather (n_2)     | S (n_2-1)/n_2                                | log2 n_2          | log2 n_2       |
| all_reduce, n = n_2  | 2 S (n_2-1)/n_2                              | 2 log2 n_2        | 2 log2 n_2     |
| all_reduce, n > n_2  | the even of a pair: 2 S (n_2-1)/n_2 + 3 S/2  | 2 log2 n_2 + 2    | 2 log2 n_2 + 3 |
|                      | the odd of a pair: S                         | 2                 |                |
|                      | the others: 2 S (n_2-1)/n_2                  | 2 log2 n_2        |                |

Parts are the nodes of a binary tree over n_2 leaves: part 0 is the whole tensor, 1 and 2 its halves, 3 to 6 quarters.
"""

from collections.abc import Iterator, Sequence

from parallel_lab.collectives.chunks import ChunkPlan, Extents, Message, assemble

_WHOLE, _LEFT, _RIGHT = 0, 1, 2


def all_reduce_plan(n: int, near_first: bool = True) -> ChunkPlan:
    """Every rank ends with the sum; any n."""
    steps = max(n, 1).bit_length() - 1
    ranks = participants(n, steps)
    if near_first:
        ranks = [ranks[_backwards(place, steps)] for place in range(len(ranks))]
    folds = n - len(ranks)
    first = 2 if folds else 0
    messages = [*_halving(ranks, steps, first), *_doubling(ranks, steps, first + steps)]
    for pair in range(folds):
        messages += _fold(2 * pair, last=first + 2 * steps)
    return assemble(n, messages, _tree(steps))


def reduce_scatter_plan(n: int) -> ChunkPlan:
    """Rank r ends with the sum of leaf r; n is a power of two."""
    steps = _log2(n)
    return assemble(n, _halving(range(n), steps), _tree(steps))


def all_gather_plan(n: int) -> ChunkPlan:
    """Rank r starts with leaf r; every rank ends with all; n is a power of two."""
    steps = _log2(n)
    return assemble(n, _doubling(range(n), steps), _tree(steps))


def _halving(ranks: Sequence[int], steps: int, first: int = 0) -> Iterator[Message]:
    """In step i, a virtual rank gives up the node of depth i+1 next to its own."""
    for step in range(steps):
        for virtual, rank in enumerate(ranks):
            partner = virtual ^ (1 << (steps - step - 1))
            yield Message(first + step, rank, ranks[partner], _node(partner, step + 1, steps), reduce=True)


def _doubling(ranks: Sequence[int], steps: int, first: int = 0) -> Iterator[Message]:
    """The same pairs backwards: a virtual rank hands over its own node of depth i+1."""
    for step in reversed(range(steps)):
        for virtual, rank in enumerate(ranks):
            partner = virtual ^ (1 << (steps - step - 1))
            yield Message(first + steps - 1 - step, rank, ranks[partner], _node(virtual, step + 1, steps))


def _fold(even: int, last: int) -> Iterator[Message]:
    """Rounds 0 and 1 leave the sum of a pair at its even rank; in round `last` the odd one gets the result."""
    odd = even + 1
    yield Message(0, even, odd, _RIGHT, reduce=True)
    yield Message(0, odd, even, _LEFT, reduce=True)
    yield Message(1, odd, even, _RIGHT)
    yield Message(last, even, odd, _WHOLE)


def participants(n: int, steps: int) -> list[int]:
    """The rank behind each of the 2^steps virtual ranks: the even ones of the pairs, then those without a pair."""
    folds = n - (1 << steps)
    return [*range(0, 2 * folds, 2), *range(2 * folds, n)]


def _backwards(place: int, bits: int) -> int:
    """The number whose bits are those of `place` read backwards: the farthest partner becomes the nearest."""
    return sum((place >> bit & 1) << (bits - 1 - bit) for bit in range(bits))


def _tree(steps: int) -> Extents:
    leaves = 1 << steps
    return tuple(
        (i * leaves >> depth, (i + 1) * leaves >> depth) for depth in range(steps + 1) for i in range(1 << depth)
    )


def _node(leaf: int, depth: int, steps: int) -> int:
    """The part of depth `depth` that holds `leaf`."""
    return (1 << depth) - 1 + (leaf >> (steps - depth))


def _log2(n: int) -> int:
    if n < 1 or n & (n - 1):
        raise ValueError(f"n={n}: halving without a fold needs a power of two; all_reduce_plan takes any n")
    return n.bit_length() - 1
