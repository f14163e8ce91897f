"""What a synchronous step costs through servers and through an all-reduce, by the alpha-beta model.

Each rank has one full-duplex link of W bytes per second in each direction: the messages of a rank share its way out,
and its way in. With n workers, k servers and a vector of S bytes, a pull is n messages of S / k out of each server and
k messages into each worker; a push is the same backwards. Workers are served in groups of k, in which each server
answers another worker at a time: k messages per group. Two schedules, both without the latencies:

    pull, compute, push (`step_seconds`)          (ceil(n / k) + 1) S / W
    in pieces (`overlapped_seconds`)              (max(1, n / k) + ceil(n / k) / pieces) S / W
    any schedule at least (`bound_seconds`)       max(1, n / k) S / W
    workers serve too, at least (`unified_bound_seconds`)   2 n (n - 1) / (n^2 + k n - 2 k) S / W
    ring of the workers (`ring_seconds`)          2 (n - 1) / n S / W

In the first schedule the first group pushes while the next one is answered, but a worker uses one direction of its link
at a time. In the second it pulls a piece while it pushes the next (`push_pull`); the formula is of two workers or more.
So n servers on machines of their own come near half of the ring's time; n / 2 servers come near the ring's; fewer are
slower. In bytes over all links the servers are never cheaper: 2 n S against 2 (n - 1) S.

Workers' machines can serve as well. Let `inner` be the part of the bytes that each of them serves, and `outer` the part
of each server: n inner + k outer = 1. A worker's machine sends S - inner S of its gradient and the sums of its part to
n - 1 others, S + (n - 2) inner S in all; a server sends n outer S. The busiest link carries least where both are equal:
the fourth line. Without extra machines it is the ring's time, with n of them S / W, half of it, and each one until then
helps.

For short messages the latency decides. A star of one server has n + 1 messages one after another, a ring 2 (n - 1), and
other all-reduces can have fewer than both: `all_reduce_seconds` is the fastest of those that `network.price` knows.

Li et al. 2014, section 2.2; Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms", 2009; Jiang et al., "A unified
architecture for accelerating distributed DNN training", OSDI 2020 (BytePS), sections 2 and 4.1.
"""

from collections.abc import Callable
from math import ceil, sqrt

from parallel_lab.collectives.api import algorithms
from parallel_lab.network import Link, ring_cost
from parallel_lab.network.collective import price
from parallel_lab.parameter_server.shards import bounds
from parallel_lab.parameter_server.wire import HEADER_BYTES

MOST_PIECES = 4096
"""The most pieces of a shard that `best_pieces` proposes."""


def worker_sent_bytes(elements: int, servers: int, item_bytes: int, steps: int) -> int:
    """Bytes that a worker sends: in each step its gradient, and per server an ask and a push's header; a last ask."""
    return steps * elements * item_bytes + servers * (2 * steps + 1) * HEADER_BYTES


def server_sent_bytes(elements: int, servers: int, item_bytes: int, steps: int, workers: int, server: int = 0) -> int:
    """Bytes that server `server` sends: its shard and a header to each worker, in each step and once at the end."""
    cut = bounds(elements, servers)[server]
    return workers * (steps + 1) * ((cut.stop - cut.start) * item_bytes + HEADER_BYTES)


def server_held_bytes(elements: int, servers: int, workers: int, item_bytes: int = 4, states: int = 2) -> int:
    """Bytes that the first server holds: its shard, the optimizer's `states`, and a gradient of each worker."""
    cut = bounds(elements, servers)[0]
    return (cut.stop - cut.start) * item_bytes * (1 + states + workers)


def rows_bytes(rows: int, width: int, item_bytes: int = 4, index_bytes: int = 8) -> int:
    """Bytes between a worker and all servers in a step that needs `rows` of a table: indices, rows, their gradients."""
    return rows * (index_bytes + 2 * width * item_bytes)


def step_seconds(workers: int, servers: int, size_bytes: float, link: Link) -> float:
    """Seconds of pull and push in a synchronous step of a vector of `size_bytes`; computation comes on top."""
    groups = ceil(workers / servers)
    message_s = link.seconds(size_bytes / servers + HEADER_BYTES)
    # With several groups of workers, the last one's asks go out while the first one is answered.
    asks_s = servers * link.seconds(HEADER_BYTES) if groups == 1 else 0.0
    return asks_s + (groups + 1) * servers * message_s


def overlapped_seconds(workers: int, servers: int, size_bytes: float, link: Link, pieces: int | None = None) -> float:
    """Seconds of a push and pull in `pieces` per shard, the pull of one beside the push of the next (`push_pull`).

    Without `pieces`, as many as are best.
    """
    pieces = best_pieces(workers, servers, size_bytes, link) if pieces is None else pieces
    piece_bytes = size_bytes / (servers * pieces)
    slot_s = link.occupancy_s(piece_bytes)
    # The busiest port takes in max(n, k) messages of each piece; then the last piece is answered, group by group.
    slots = pieces * max(workers, servers) + ceil(workers / servers) * servers
    # The first sum goes out when the last push of it has arrived, and the last message is over when it has arrived.
    return slots * slot_s + 2 * (link.seconds(piece_bytes) - slot_s)


def best_pieces(workers: int, servers: int, size_bytes: float, link: Link) -> int:
    """The number of pieces with the least `overlapped_seconds`: where k divides n, sqrt(S / W over k latencies)."""
    held_s = max(workers, servers) * link.occupancy_s(0)
    sent_s = ceil(workers / servers) * (link.seconds(size_bytes) - link.latency_s)
    pieces = sqrt(sent_s) / sqrt(held_s) if held_s else MOST_PIECES
    near = {min(max(1, int(pieces) + more), MOST_PIECES) for more in (0, 1)}
    return min(near, key=lambda some: overlapped_seconds(workers, servers, size_bytes, link, some))


def bound_seconds(workers: int, servers: int, size_bytes: float, link: Link) -> float:
    """A lower bound for any schedule through servers with links of their own: two latencies and the busiest link."""
    return 2 * link.latency_s + max(1, workers / servers) * size_bytes / link.bytes_per_s


def unified_bound_seconds(workers: int, servers: int, size_bytes: float, link: Link) -> float:
    """A lower bound where the workers' machines serve too, and `servers` more: theorem 1 of Jiang et al. 2020.

    With more servers than workers it is S / W: each worker sends its gradient.
    """
    n, k = workers, servers
    busiest = 1.0 if k >= n else 2 * n * (n - 1) / (n * n + k * n - 2 * k)
    return 2 * link.latency_s + busiest * size_bytes / link.bytes_per_s


def ring_seconds(ranks: int, size_bytes: float, link: Link) -> float:
    """Seconds of a ring all-reduce of `size_bytes` on `ranks` ranks."""
    return ring_cost("all_reduce", ranks, size_bytes).seconds(link)


def all_reduce_seconds(ranks: int, size_bytes: float, link: Link) -> float:
    """Seconds of the fastest all-reduce that the course has a price for; a star is left out, since it is a server."""
    others = set(algorithms("all_reduce")) - {"star", "hierarchical"}
    return min(price("all_reduce", ranks, size_bytes, algorithm=name).seconds(link) for name in others)


def crossover(
    workers: int,
    size_bytes: float,
    link: Link,
    within: float = 1.0,
    seconds: Callable[[int, int, float, Link], float] = overlapped_seconds,
) -> int | None:
    """The fewest servers with which a step takes at most `within` times as long as a ring of the workers; or None."""
    limit_s = within * ring_seconds(workers, size_bytes, link)
    fits = (servers for servers in range(1, workers + 1) if seconds(workers, servers, size_bytes, link) <= limit_s)
    return next(fits, None)
