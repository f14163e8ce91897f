"""What a synchronous step costs through servers and through a ring, by the alpha-beta model.

Each rank has one full-duplex link: the messages of a rank share its way out, and its way in. With n workers, s servers
and a vector of S bytes, a pull is n messages of S / s out of each server and s messages into each worker, a push the
same backwards. Workers are served in groups of s, in which each server answers another worker at a time: s messages a
group. The first group pushes while the next is answered; so after ceil(n / s) s messages the last worker has its
parameters, and s messages later its gradient has arrived:

    step = (ceil(n / s) + 1) S / beta            ring = 2 (n - 1) / n S / beta

With one server a step takes n + 1 times S / beta, with n servers twice. More do not help: a worker sends all of its
gradient and takes all of the parameters, of which the ring saves each rank its own n-th part. So the best that servers
reach is n / (n - 1) times the ring's time.

Li et al. 2014, section 2.3; Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms", 2009; Jiang et al., "A unified
architecture for accelerating distributed DNN training", OSDI 2020 (BytePS), section 2.
"""

from math import ceil

from parallel_lab.network import Link, ring_cost
from parallel_lab.parameter_server.shards import bounds
from parallel_lab.parameter_server.wire import HEADER_BYTES


def worker_sent_bytes(elements: int, servers: int, item_bytes: int, steps: int) -> int:
    """Bytes that a worker sends: in each step its gradient, and an ask and a push's header a server; a last ask."""
    return steps * elements * item_bytes + servers * (2 * steps + 1) * HEADER_BYTES


def server_sent_bytes(elements: int, servers: int, item_bytes: int, steps: int, workers: int, server: int = 0) -> int:
    """Bytes that server `server` sends: its shard and a header to each worker, in each step and once at the end."""
    cut = bounds(elements, servers)[server]
    return workers * (steps + 1) * ((cut.stop - cut.start) * item_bytes + HEADER_BYTES)


def step_seconds(workers: int, servers: int, size_bytes: float, link: Link) -> float:
    """Seconds of pull and push in a synchronous step of a vector of `size_bytes`; computation comes on top."""
    groups = ceil(workers / servers)
    message_s = link.seconds(size_bytes / servers + HEADER_BYTES)
    # With several groups of workers, the last one's asks go out while the first one is answered.
    asks_s = servers * link.seconds(HEADER_BYTES) if groups == 1 else 0.0
    return asks_s + (groups + 1) * servers * message_s


def ring_seconds(ranks: int, size_bytes: int, link: Link) -> float:
    """Seconds of a ring all-reduce of `size_bytes` on `ranks` ranks."""
    return ring_cost("all_reduce", ranks, size_bytes).seconds(link)


def crossover(workers: int, size_bytes: int, link: Link, within: float = 1.25) -> int | None:
    """The fewest servers with which a step takes at most `within` times as long as a ring of the workers; or None."""
    limit_s = within * ring_seconds(workers, size_bytes, link)
    fits = (s for s in range(1, workers + 1) if step_seconds(workers, s, size_bytes, link) <= limit_s)
    return next(fits, None)
