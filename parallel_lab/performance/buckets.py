"""Gradients over a link: how many buckets, in which order, in how many pieces, and by which algorithm.

Three ideas, each predicted with a pencil, simulated as a plan, and carried out by real ranks (`execute`):

    bucket size    Few buckets cannot start before much of backward is over; many pay their latency often. Where the
                   link sets the pace, q buckets cost T_B/q + 2 (n-1) α q beside what q does not change, T_B that of a
                   backward pass: q = sqrt(T_B / (2 (n-1) α)) is best (Li et al. 2020, "PyTorch Distributed", section
                   4.2, choose by trial).
    priority       Backward ends with layer 0, and the next forward begins with it. Served in the order of arrival, its
                   gradient is last. Served by priority it goes first (Jayarajan et al. 2019, "Priority-based parameter
                   propagation", section 3; Peng et al. 2019, "ByteScheduler").
    multiplexing   A long message that has begun holds the link. Cut in pieces, an urgent one waits for a piece only.

`exchange` is the plan of backward, exchange and next forward; weights are updated in no time, layer by layer. Its order
on the link is decided once, by the times that are expected, and is the same on all ranks, as collectives demand.
"""

import math
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist

from parallel_lab.collectives import ChunkPlan, hierarchical, ring
from parallel_lab.data_parallel import overlap
from parallel_lab.network import AlphaBeta, Link, Topology, price
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime import rank_device
from parallel_lab.simulate import simulate
from parallel_lab.trace import span, tag

Order = Literal["arrival", "priority"]
ALGORITHMS = ("ring", "tree", "recursive_doubling", "halving_doubling")


def step_s(n: int, count: int, size_bytes: float, link: Link, forward_s: float, backward_s: float) -> float:
    """Seconds of a step whose `size_bytes` of gradients leave in `count` equal buckets, each a ring, overlapped."""
    bucket_s = price("all_reduce", n, size_bytes / count).seconds(link)
    return overlap.step_s(forward_s, backward_s, count, bucket_s)


def best_count(n: int, link: Link, backward_s: float, size_bytes: float) -> float:
    """The number of equal buckets with the shortest step, as a real number at least 1; infinite without a latency.

    Where the link sets the pace it is sqrt(T_B / latency), latency = 2 (n-1) α. Where backward does, more buckets leave
    a shorter last one, until a bucket's exchange takes as long as its backward: (T_B - 2 (n-1)/n S/W) / latency of
    them.
    """
    latency_s, wire_s = 2 * (n - 1) * link.latency_s, 2 * (n - 1) / n * size_bytes / link.bytes_per_s
    if not latency_s:
        return math.inf
    paced_by_link = math.sqrt(backward_s / latency_s)
    return max(1.0, paced_by_link, (backward_s - wire_s) / latency_s)


class Piece(NamedTuple):
    """A part of a layer's gradient that travels as one message."""

    layer: int
    number: int
    size_bytes: float


def queue(
    link: Link, n: int, layer_bytes: Sequence[float], backward_s: Sequence[float], order: Order, pieces: int = 1
) -> list[Piece]:
    """The order in which the pieces of all layers leave, if each leaves when the link is free and it is there.

    Backward goes from the last layer to the first. Of the pieces that are there, the link takes the one that came first
    (`arrival`), or that of the lowest layer (`priority`).
    """
    ready_s, clock_s = {}, 0.0
    for layer in reversed(range(len(layer_bytes))):
        clock_s += backward_s[layer]
        ready_s[layer] = clock_s
    waiting = [Piece(layer, k, layer_bytes[layer] / pieces) for layer in ready_s for k in range(pieces)]
    found, clock_s = [], 0.0
    while waiting:
        clock_s = max(clock_s, min(ready_s[piece.layer] for piece in waiting))
        there = [piece for piece in waiting if ready_s[piece.layer] <= clock_s]
        piece = min(there) if order == "priority" else there[0]
        waiting.remove(piece)
        found.append(piece)
        clock_s += price("all_reduce", n, piece.size_bytes).seconds(link)
    return found


def exchange(n: int, sent: Sequence[Piece]) -> Plan:
    """Backward of all layers, the all-reduces in the order of `sent`, and the next forward, on `n` ranks.

    The part of a pass is its layer, that of an all-reduce its layer, its mb the piece. A forward needs all pieces of
    its layer, a piece the backward of its layer on every rank.
    """
    layers = 1 + max(piece.layer for piece in sent)
    ops, needs = [], {}
    for rank in range(n):
        backward = [Op(rank, "B", layer, phase="backward") for layer in reversed(range(layers))]
        reduces = [Op(rank, "all_reduce", p.layer, p.number, lane=SEND, phase="backward") for p in sent]
        forward = [Op(rank, "F", layer, 1, phase="forward") for layer in range(layers)]
        ops += [*backward, *reduces, *forward]
        for op in reduces:
            needs[op] = tuple(Op(each, "B", op.part, phase="backward") for each in range(n))
        needs |= {op: tuple(r for r in reduces if r.part == op.part) for op in forward}
    return Plan.of(ops, needs)


def cost(link: Link, sent: Sequence[Piece], forward_s: Sequence[float], backward_s: Sequence[float]) -> AlphaBeta:
    """What `exchange(n, sent)` costs over `link`."""
    sizes = {(piece.layer, piece.number): piece.size_bytes for piece in sent}
    return AlphaBeta.over(link, lambda op: sizes[op.part, op.mb], {"F": forward_s, "B": backward_s})


def execute(sent: Sequence[Piece], forward_s: Sequence[float], backward_s: Sequence[float]) -> None:
    """Carries out this rank's row of `exchange`: real all-reduces, and passes in which the host waits.

    A pass stands for an accelerator that computes: the rank does nothing for its seconds. So two cores can play many
    accelerators, and what is measured is the order of the link.
    """
    buffers = {p: torch.ones(max(1, round(p.size_bytes / 4)), device=rank_device()) for p in sent}
    handles: dict[int, list[dist.Work | None]] = {}
    there, left = set(), list(sent)
    for layer in reversed(range(len(backward_s))):
        with span("backward", part=layer, phase="backward"):
            time.sleep(backward_s[layer])
        there.add(layer)
        while left and left[0].layer in there:  # the order is that of the queue, on every rank
            piece = left.pop(0)
            with tag(part=piece.layer, mb=piece.number, phase="backward"):
                work = dist.all_reduce(buffers[piece], async_op=True)
            handles.setdefault(piece.layer, []).append(work)
    for layer, seconds in enumerate(forward_s):
        for work in handles.get(layer, ()):
            if work is not None:
                work.wait()
        with span("forward", part=layer, mb=1, phase="forward"):
            time.sleep(seconds)


def choose(ranks: int, size_bytes: float, link: Link) -> dict[str, float]:
    """Seconds of an all-reduce by each algorithm, the fastest first: trees for small tensors, rings for large ones."""
    times = {each: price("all_reduce", ranks, size_bytes, algorithm=each).seconds(link) for each in ALGORITHMS}
    return dict(sorted(times.items(), key=lambda pair: pair[1]))


def over_nodes(ranks: int, ranks_per_node: int, size_bytes: float, intra: Link, inter: Link) -> dict[str, float]:
    """Seconds of an all-reduce by one ring over all ranks, and by rings in the nodes and between them, simulated.

    Each rank has its own link to other nodes, as in `Topology`.
    """

    def seconds(plan: ChunkPlan) -> float:
        def part_bytes(op: Op) -> float:
            first, last = plan.extents[op.part]
            return size_bytes * (last - first) / plan.leaves

        return simulate(plan, Topology(ranks_per_node, intra, inter, part_bytes)).duration_s

    return {
        "ring": seconds(ring.all_reduce_plan(ranks)),
        "hierarchical": seconds(hierarchical.all_reduce_plan(ranks // ranks_per_node, ranks_per_node)),
    }
