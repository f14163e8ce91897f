"""Recursive doubling: whole tensors in log2(n) exchanges; the choice for short messages.

Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19 (2005),
section 4: MPICH's all-reduce of short messages.

In round i a rank and its partner, 2^i ranks away, exchange all that they hold, and both add. After i rounds a rank
holds the sum of a block of 2^i ranks, so log2 n rounds are enough, half of those of halving-doubling: there is no way
back, since the sum is made everywhere. The price is bytes, S in each round. With two ranks it is the plain swap: one
round, S bytes each way, which is the bound of an all-reduce in latency and in bytes.

When n is no power of two, let n_2 be the largest power of two below it. The first 2 (n - n_2) ranks are folded in
pairs: the odd one of a pair hands its tensor to the even one beforehand, and gets the result at the end.

With S the bytes of the tensor, and n_2 = n where n is a power of two:

| plan                | bytes sent per rank                  | messages per rank | rounds       |
|---------------------|--------------------------------------|-------------------|--------------|
| all_reduce, n = n_2 | S log2 n_2                           | log2 n_2          | log2 n_2     |
| all_reduce, n > n_2 | the even of a pair: S (log2 n_2 + 1) | log2 n_2 + 1      | log2 n_2 + 2 |
|                     | the odd of a pair: S                 | 1                 |              |
|                     | the others: S log2 n_2               | log2 n_2          |              |

An element is summed on every rank, not in one place. All ranks get the same bits all the same: the tree of additions
is the same everywhere but for the order of the two operands, on which their sum does not depend.
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves
from parallel_lab.collectives.halving_doubling import participants


def all_reduce_plan(n: int) -> ChunkPlan:
    """Every rank ends with the sum; any n."""
    steps = max(n, 1).bit_length() - 1
    ranks = participants(n, steps)
    folds = n - len(ranks)
    first = 1 if folds else 0
    into = [Message(0, 2 * pair + 1, 2 * pair, part=0, reduce=True) for pair in range(folds)]
    back = [Message(first + steps, 2 * pair, 2 * pair + 1, part=0) for pair in range(folds)]
    return assemble(n, [*into, *_swaps(ranks, steps, first), *back], leaves(1), ahead=0)


def _swaps(ranks: list[int], steps: int, first: int) -> Iterator[Message]:
    """In step i, a virtual rank and the one 2^i away send each other all that they hold."""
    for step in range(steps):
        for virtual, rank in enumerate(ranks):
            yield Message(first + step, rank, ranks[virtual ^ (1 << step)], part=0, reduce=True)
