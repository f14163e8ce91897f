"""Drills of chapter 02: bytes and seconds of collectives."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.network import Link, bus_bandwidth, price


@problem("ring-bytes", chapter="02")
def ring_bytes(dice: Random) -> Drawn:
    """The bytes that one rank of a ring all-reduce sends."""
    n, size_mb = dice.choice((4, 5, 8, 10, 16, 64)), dice.choice((100, 200, 400, 800))
    sent_mb = price("all_reduce", n, size_mb * 1e6).sent_bytes / 1e6
    return Drawn(
        question=f"{n} ranks all-reduce {size_mb} MB by a ring. How many MB does each rank send?",
        answer=sent_mb,
        unit="MB",
        steps=(
            f"Reduce-scatter: n - 1 = {n - 1} messages of S/n = {size_mb / n:g} MB.",
            "All-gather: as many again.",
            f"2 (n - 1)/n · S = 2 · {n - 1}/{n} · {size_mb} MB = {sent_mb:,.4g} MB, always less than 2S.",
        ),
        wrong=(
            (2 * size_mb, "You let a rank send 2S. In each half of the ring it sends all pieces but one."),
            (size_mb, "You counted S once. The ring has two halves, and each sends a little less than S."),
            (sent_mb / 2, "That is one half of the ring, the reduce-scatter or the all-gather."),
            ((n - 1) * size_mb, "You sent everything to every other rank. A ring adds up on the way."),
        ),
    )


@problem("ring-time", chapter="02")
def ring_time(dice: Random) -> Drawn:
    """The time of a ring all-reduce, latency and bytes apart."""
    n, size_mb = dice.choice((64, 128, 512, 1024, 2048)), dice.choice((1, 10, 25, 100, 400))
    link = Link(latency_s=dice.choice((5e-6, 10e-6, 20e-6)), bytes_per_s=dice.choice((12.5e9, 25e9, 50e9)))
    latency_us, bandwidth_gb = link.latency_s * 1e6, link.bytes_per_s / 1e9
    time_ms = 1e3 * price("all_reduce", n, size_mb * 1e6).seconds(link)
    waiting_ms = 2 * (n - 1) * link.latency_s * 1e3
    return Drawn(
        question=(
            f"{n:,} ranks all-reduce {size_mb} MB by a ring, over links of α = {latency_us:g} µs and "
            f"W = {bandwidth_gb:g} GB/s in each direction. How many ms does it take?"
        ),
        answer=time_ms,
        unit="ms",
        steps=(
            f"2 (n - 1) = {2 * (n - 1):,} messages follow one another.",
            f"Latency: {2 * (n - 1):,} · {latency_us:g} µs = {waiting_ms:,.4g} ms.",
            f"Bytes: 2 (n - 1)/n · S/W, nearly 2 · {size_mb} MB / {bandwidth_gb:g} GB/s = "
            f"{time_ms - waiting_ms:,.4g} ms.",
            f"Together {time_ms:,.4g} ms.",
        ),
        wrong=(
            (time_ms - waiting_ms, "You left out the latency."),
            (time_ms - waiting_ms / 2, "You counted the latency of one half of the ring."),
            ((time_ms + waiting_ms) / 2, "You counted the bytes of one half of the ring."),
            (waiting_ms, "That is the latency alone. The bytes take time too."),
            (
                time_ms - waiting_ms + 2 * link.latency_s * 1e3,
                "Two latencies: the messages of a ring follow one another.",
            ),
        ),
    )


@problem("bus-bandwidth", chapter="02")
def measured_bandwidth(dice: Random) -> Drawn:
    """The bus bandwidth of a measured all-reduce, as nccl-tests print it."""
    n, size_gb, time_ms = dice.choice((2, 4, 8, 16)), dice.choice((1, 2, 4, 8)), dice.choice((5, 6, 8, 10, 12))
    time_ms *= size_gb
    algorithm_gb = size_gb / time_ms * 1e3
    bus_gb = bus_bandwidth("all_reduce", n, size_gb, time_ms / 1e3)
    return Drawn(
        question=(
            f"nccl-tests all-reduce {size_gb} GB on {n} GPUs in {time_ms} ms. What is the bus bandwidth (busbw)?"
        ),
        answer=bus_gb,
        unit="GB/s",
        steps=(
            f"algbw = S/T = {size_gb} GB / {time_ms} ms = {algorithm_gb:,.4g} GB/s.",
            "Busbw, not algbw, is what one compares with one direction of the link.",
            f"busbw = 2 (n - 1)/n · algbw = 2 · {n - 1}/{n} · {algorithm_gb:,.4g} = {bus_gb:,.4g} GB/s.",
        ),
        wrong=(
            (algorithm_gb, "That is the algorithm bandwidth, S/T. The question asks for busbw."),
            (bus_gb / 2, "You took (n - 1)/n, the factor of an all-gather or a reduce-scatter."),
            (algorithm_gb**2 / bus_gb, "You divided by the factor of the ring. A link carries more than S here."),
            (8 * bus_gb, "That is in Gbit/s."),
        ),
    )


@problem("node-egress", chapter="02")
def node_egress(dice: Random) -> Drawn:
    """The time that the cards of a node need for a hierarchical all-reduce."""
    nodes, size_gb, cards = dice.choice((4, 8, 16, 32)), dice.choice((2, 4, 8, 16)), dice.choice((1, 2, 4, 8))
    leaves_gb = 2 * (nodes - 1) / nodes * size_gb
    time_ms = 1e3 * leaves_gb / (50 * cards)
    return Drawn(
        question=(
            f"{nodes} nodes of 8 GPUs all-reduce {size_gb} GB hierarchically. A node has {cards} card(s) of "
            "400 Gbit/s, all equally busy. How many ms do the bytes between the nodes take? (Leave latency out.)"
        ),
        answer=time_ms,
        unit="ms",
        steps=(
            "Inside the node a reduce-scatter leaves each GPU with one eighth; the 8 eighths cross separately.",
            f"So {2 * (nodes - 1)}/{nodes} · S = {leaves_gb:,.4g} GB leave each node: the nodes are the ring's ranks.",
            f"{cards} card(s) carry {50 * cards} GB/s in one direction: 400 Gbit/s are 50 GB/s.",
            f"{leaves_gb:,.4g} GB / {50 * cards} GB/s = {time_ms:,.4g} ms.",
        ),
        wrong=(
            (time_ms * cards, "You let one card carry all. The cards of a node work at one time."),
            (time_ms / 8, "You took Gbit/s for GB/s, or one GPU's eighth: all eighths share the cards."),
            (8 * time_ms, "You sent all of every GPU's gradients. Inside the node they are added up first."),
            (time_ms / 2, "That is one half of the ring over the nodes."),
        ),
    )
