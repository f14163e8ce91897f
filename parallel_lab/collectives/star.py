"""Star: one rank is the server; all others talk to it only. The plain parameter server, and what it costs.

Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014, here with a single server.

Each rank sends its whole tensor to the server, which adds them up one after another; then the server sends the sum to
each. The server's link carries everything, so its bytes grow with n as its messages do. A ring's messages grow too, but
no rank of it sends 2 S.

With S the bytes of the tensor:

| plan       | bytes sent by the server, by the others | messages     | rounds  |
|------------|-----------------------------------------|--------------|---------|
| reduce     | 0, S                                    | 0, 1         | n-1     |
| broadcast  | (n-1) S, 0                              | n-1, 0       | n-1     |
| all_reduce | (n-1) S, S                              | n-1, 1       | 2 (n-1) |

The server takes in (n-1) S as well. A message is a round of its own, since the server's link takes one at a time. How
long that is, the link says: 2 (n-1) (alpha + S/W) where a message holds the server's port for its whole latency, and
2 (alpha + (n-2) gap + (n-1) S/W) where it holds it for a gap alone (`Link.gap_s`).
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves


def all_reduce_plan(n: int, root: int = 0) -> ChunkPlan:
    """Every rank ends with the sum, which rank `root` computed."""
    return assemble(n, [*_in(n, root), *_out(n, root, first=n - 1)], leaves(1), ahead=0)


def reduce_plan(n: int, root: int = 0) -> ChunkPlan:
    """Root ends with the sum; the others keep what they put in."""
    return assemble(n, _in(n, root), leaves(1), ahead=0)


def broadcast_plan(n: int, root: int = 0) -> ChunkPlan:
    """Every rank ends with root's tensor."""
    return assemble(n, _out(n, root), leaves(1))


def _in(n: int, root: int) -> Iterator[Message]:
    for place in range(1, n):
        yield Message(place - 1, (root + place) % n, root, part=0, reduce=True)


def _out(n: int, root: int, first: int = 0) -> Iterator[Message]:
    for place in range(1, n):
        yield Message(first + place - 1, root, (root + place) % n, part=0)
