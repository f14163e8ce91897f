"""Ring all-to-all: ranks that reach their neighbors only relay each other's blocks, one way round or both ways.

Each rank has a block for every other. Exchanged directly (`full_mesh`), a block is sent once. Round a ring it is sent
again by every rank on its way. One way round, the block for the rank i places to the right is sent i times; both ways
round, it takes the shorter way. In an all-reduce a ring sends the fewest bytes possible; in an all-to-all it sends n/2
times those of a direct exchange one way, and about n/4 times both ways. Nothing is added up on the way, so nothing
gets less.

With S the bytes that a rank puts in, in blocks of S/n:

| plan                 | bytes sent per rank                   | messages per rank | rounds  |
|----------------------|---------------------------------------|-------------------|---------|
| full_mesh (directly) | S (n-1)/n                             | n-1               | 1       |
| one way              | S (n-1)/2                             | n-1               | n-1     |
| both ways, n even    | S n/4, half of them each way          | n                 | n/2     |
| both ways, n odd     | S (n^2-1)/(4n), half of them each way | n-1               | (n-1)/2 |

Where the two neighbors hang on two links (a ring or a torus of accelerators), half of the bytes go over each, S n/8.

A message carries all blocks that go on in the same direction. They lie side by side, since row i of the grid holds
rank i's blocks in the order of their distance: first its own, then that for the rank i + 1. A block is two leaves,
because one that goes half way round an even ring is cut: its first half goes right, the second left.
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble


def all_to_all_plan(n: int, both_ways: bool = False) -> ChunkPlan:
    """Rank r starts with row r; it ends with the block at distance i of row r - i, for each i."""
    extents: list[tuple[int, int]] = []
    messages: list[Message] = []
    for hop, way, first, last in _hops(n, both_ways):
        for source in range(n):
            sender, receiver = (source + way * (hop - 1)) % n, (source + way * hop) % n
            messages.append(Message(hop - 1, sender, receiver, len(extents)))
            extents.append((2 * n * source + first, 2 * n * source + last))
    whole = tuple((2 * n * source, 2 * n * (source + 1)) for source in range(n))
    return assemble(n, messages, (*extents, *whole))


def _hops(n: int, both_ways: bool) -> Iterator[tuple[int, int, int, int]]:
    """For each hop the way, 1 for right, and the leaves of a row that go on: the first, and the end."""
    if not both_ways:
        yield from ((hop, 1, 2 * hop, 2 * n) for hop in range(1, n))
        return
    for hop in range(1, n // 2 + 1):
        yield hop, 1, 2 * hop, n + 1
        yield hop, -1, n + 1, 2 * (n - hop + 1)
