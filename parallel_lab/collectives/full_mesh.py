"""Full mesh: every rank sends to every other directly. One round for each half, but n-1 messages in it.

Thakur, Rabenseifner & Gropp (2005), section 4 (pairwise exchange). Inside a node with a link for each pair this is the
"two-shot" all-reduce.

Rank r owns chunk r. In a reduce-scatter everyone sends chunk j straight to rank j, who adds up; in an all-gather
every owner sends its chunk to everyone. Rank r sends to r+1 first, then r+2, so that no one is sent to by all at once.

With S the bytes of the tensor (for all_to_all: of what a rank puts in):

| plan           | bytes sent per rank | messages per rank | rounds |
|----------------|---------------------|-------------------|--------|
| reduce_scatter | S (n-1)/n           | n-1               | 1      |
| all_gather     | S (n-1)/n           | n-1               | 1      |
| all_reduce     | 2 S (n-1)/n         | 2 (n-1)           | 2      |
| all_to_all     | S (n-1)/n           | n-1               | 1      |
| one_shot       | S (n-1)             | n-1               | 1      |

The bytes are the ring's. How long n-1 messages of a rank take depends on what they share:

- a link of its own for each pair, as in an MI300X node (`AlphaBeta(own_links=True)`): 2 (alpha + S/(n W));
- one port, held for the whole time of a message: 2 (n-1) (alpha + S/(n W)), a ring's time;
- one port, held for gap + bytes/W of it (`gap_s`, LogGP): 2 (alpha + (n-2) gap + (n-1) S/(n W)). With (n-2) gap far
  below alpha, short messages take hardly more than two latencies, and a ring 2 (n-1).

`one_shot_plan` is the naive all-reduce that "fully connected" makes one think of: everyone sends its whole tensor to
everyone. That is one round, and n(n-1) S bytes in all, n/2 times the least.
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves


def all_reduce_plan(n: int) -> ChunkPlan:
    """Every rank ends with the whole sum."""
    return assemble(n, [*_to_owners(n), *_from_owners(n, first=1)], leaves(n))


def one_shot_plan(n: int) -> ChunkPlan:
    """Every rank ends with the whole sum, having added all tensors itself, each rank in another order."""
    messages = [Message(0, source, target, part=0, reduce=True) for source, target in _pairs(n)]
    return assemble(n, messages, leaves(1))


def reduce_scatter_plan(n: int) -> ChunkPlan:
    """Rank r ends with the sum of chunk r; the other chunks keep what it put in."""
    return assemble(n, _to_owners(n), leaves(n))


def all_gather_plan(n: int) -> ChunkPlan:
    """Rank r starts with chunk r; every rank ends with all chunks."""
    return assemble(n, _from_owners(n, first=0), leaves(n))


def all_to_all_plan(n: int) -> ChunkPlan:
    """Of an (n, n) grid of chunks, rank r starts with row r and ends with column r: part `i n + j` goes from i to j."""
    messages = [Message(0, i, j, i * n + j) for i, j in _pairs(n)]
    return assemble(n, messages, leaves(n * n))


def _to_owners(n: int) -> Iterator[Message]:
    for source, owner in _pairs(n):
        yield Message(0, source, owner, part=owner, reduce=True)


def _from_owners(n: int, first: int) -> Iterator[Message]:
    for owner, target in _pairs(n):
        yield Message(first, owner, target, part=owner)


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    """All ordered pairs of different ranks, those one apart first."""
    for distance in range(1, n):
        for rank in range(n):
            yield rank, (rank + distance) % n
