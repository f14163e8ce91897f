"""Ring collectives: each rank sends to its right neighbor only, and every link is busy in every round.

Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel Distrib. Comput.
69 (2009), on the ring and the lower bound.

The tensor is cut into n chunks. In the reduce-scatter, chunk i starts at rank i+1 and goes once round the ring; every
rank it meets adds its own share, so that it arrives complete at rank i. In the all-gather each complete chunk goes
round once more and is copied.

With S the bytes of the tensor, `pieces` those that each chunk is cut into:

| plan           | bytes sent per rank  | messages per rank | rounds         |
|----------------|----------------------|-------------------|----------------|
| reduce_scatter | S (n-1)/n            | n-1               | n-1            |
| all_gather     | S (n-1)/n            | n-1               | n-1            |
| all_reduce     | 2 S (n-1)/n          | 2 pieces (n-1)    | 2 (n-1)        |
| broadcast      | S, and 0 at the last | pieces, and 0     | n-1 + pieces-1 |
| reduce         | S, and 0 at the root | pieces, and 0     | n-1 + pieces-1 |

Chunks are near-equal; where n does not divide, bytes differ by an element per chunk. Where only ranks add, the
busiest rank of an all-reduce sends at least 2 S (n-1)/n, which the paper proves; the price is the latency of 2 (n-1)
rounds.
"""

from collections.abc import Iterator, Sequence

from parallel_lab.collectives.chunks import ALL, ChunkPlan, Message, assemble, leaves


def all_reduce_plan(n: int, pieces: int = 1, ahead: int = ALL) -> ChunkPlan:
    """Reduce-scatter, then all-gather: every rank ends with the whole sum.

    Each chunk is sent in `pieces` messages, so that a rank adds one while the next is on the wire. Receives are posted
    `ahead` rounds early; scratch is held for ahead + 2 chunks, and at most n - 1.
    """
    ranks, chunks = range(n), _chunks(n, pieces)
    messages = [*scatter_messages(ranks, chunks), *gather_messages(ranks, chunks, n - 1)]
    return assemble(n, messages, leaves(n * pieces), ahead)


def reduce_scatter_plan(n: int) -> ChunkPlan:
    """Rank r ends with the sum of chunk r; what it holds of the others is a partial sum."""
    return assemble(n, scatter_messages(range(n), _chunks(n)), leaves(n))


def all_gather_plan(n: int) -> ChunkPlan:
    """Rank r starts with chunk r; every rank ends with all chunks."""
    return assemble(n, gather_messages(range(n), _chunks(n)), leaves(n))


def broadcast_plan(n: int, root: int = 0, pieces: int = 1) -> ChunkPlan:
    """A pipelined chain: root sends piece after piece to its right, and each rank passes on what it has."""
    messages = [
        Message(place + piece, (root + place) % n, (root + place + 1) % n, piece)
        for place in range(n - 1)
        for piece in range(pieces)
    ]
    return assemble(n, messages, leaves(pieces))


def reduce_plan(n: int, root: int = 0, pieces: int = 1) -> ChunkPlan:
    """The chain backwards: the last rank starts, each adds its own and passes on; root ends with the sum."""
    messages = [
        Message(n - 1 - place + piece, (root + place) % n, (root + place - 1) % n, piece, reduce=True)
        for place in range(n - 1, 0, -1)
        for piece in range(pieces)
    ]
    return assemble(n, messages, leaves(pieces))


def scatter_messages(ranks: Sequence[int], chunks: Sequence[Sequence[int]], first: int = 0) -> Iterator[Message]:
    """The reduce-scatter of a ring of `ranks`: `ranks[i]` ends with the sum of the parts `chunks[i]`.

    `first` is the number of its first round.
    """
    n = len(ranks)
    for step in range(n - 1):
        for i in range(n):
            for part in chunks[(i - 1 - step) % n]:
                yield Message(first + step, ranks[i], ranks[(i + 1) % n], part, reduce=True)


def gather_messages(ranks: Sequence[int], chunks: Sequence[Sequence[int]], first: int = 0) -> Iterator[Message]:
    """The all-gather of a ring of `ranks`: `ranks[i]` starts with the parts `chunks[i]`."""
    n = len(ranks)
    for step in range(n - 1):
        for i in range(n):
            for part in chunks[(i - step) % n]:
                yield Message(first + step, ranks[i], ranks[(i + 1) % n], part)


def _chunks(n: int, pieces: int = 1) -> list[range]:
    if pieces < 1:
        raise ValueError(f"pieces={pieces}: a chunk is sent in at least 1 piece")
    return [range(chunk * pieces, (chunk + 1) * pieces) for chunk in range(n)]
