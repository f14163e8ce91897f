"""Ring collectives: every rank sends to its right neighbour only, and all links are busy all the time.

Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009), section 3.
"""

from collections.abc import Iterator

from parallel_lab.collectives.chunks import ChunkPlan, Message, assemble, leaves


def all_reduce_plan(n: int, pieces: int = 1) -> ChunkPlan:
    messages = [*_scatter(n, pieces), *_gather(n, pieces, first_round=n - 1)]
    return assemble(n, messages, leaves(n * pieces))


def _scatter(n: int, pieces: int) -> Iterator[Message]:
    for step in range(n - 1):
        for rank in range(n):
            for part in _pieces_of((rank - 1 - step) % n, pieces):
                yield Message(step, rank, (rank + 1) % n, part, reduce=True)


def _gather(n: int, pieces: int, first_round: int = 0) -> Iterator[Message]:
    for step in range(n - 1):
        for rank in range(n):
            for part in _pieces_of((rank - step) % n, pieces):
                yield Message(first_round + step, rank, (rank + 1) % n, part)


def _pieces_of(chunk: int, pieces: int) -> range:
    return range(chunk * pieces, (chunk + 1) * pieces)
