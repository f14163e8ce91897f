"""Drills of chapter 05: the time through servers, alone and beside a ring, and what a server holds."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.network import Link
from parallel_lab.parameter_server import formulas

CARDS = {100: 12.5, 200: 25.0, 400: 50.0}  # Gbit/s, and GB/s each way


@problem("server-step", chapter="05")
def server_step(dice: Random) -> Drawn:
    """The time of a synchronous pull and push through k servers."""
    gbit, servers, groups = dice.choice(list(CARDS)), dice.choice((1, 2, 4, 8)), dice.choice((2, 3, 4, 8))
    workers, size_gb = servers * groups, dice.choice((1, 2, 4, 10))
    one_ms = 1e3 * size_gb / CARDS[gbit]
    answer = (groups + 1) * one_ms
    return Drawn(
        question=f"{workers} workers pull {size_gb} GB of parameters and then push as many bytes of gradients, through "
        f"{servers} server{'s' * (servers > 1)}. Each machine has one {gbit} Gbit/s link, each way. Messages are long, "
        "the servers take turns, and a worker pushes as soon as it has pulled. How many ms does the exchange of a step "
        "take?",
        answer=answer,
        unit="ms",
        steps=(
            f"{gbit} Gbit/s are W = {CARDS[gbit]:g} GB/s each way: S/W = {size_gb}/{CARDS[gbit]:g} s = {one_ms:g} ms.",
            f"Workers are answered in groups of k = {servers}: {workers}/{servers} = {groups} groups, S/W for each.",
            "While one group pushes, the next is answered; the last group pushes alone: one S/W more.",
            f"({groups} + 1) S/W = {groups + 1} · {one_ms:g} ms = {answer:,.4g} ms.",
        ),
        wrong=(
            (2 * groups * one_ms, "You let pushes wait for all pulls. A group pushes while the next one pulls."),
            (groups * one_ms, "You left out the last push. It has nothing to hide behind."),
            ((workers + 1) * one_ms, "You took one server. They share the parameters, and work at one time."),
            (2 * one_ms, "You gave each worker a server of its own."),
            (answer / 8, "You took Gbit/s for GB/s."),
        ),
    )


@problem("overlapped-servers", chapter="05")
def overlapped_servers(dice: Random) -> Drawn:
    """The bound of servers with overlapped push and pull, as a share of the ring's time."""
    workers = dice.choice((4, 8, 16, 32, 64))
    servers = dice.choice([k for k in (workers // 4, workers // 2, workers) if k])
    size, free = 1_000_000_000, Link(0.0, 1e9)
    ring_s, bound_s = (
        formulas.ring_seconds(workers, size, free),
        formulas.bound_seconds(workers, servers, size, free),
    )
    answer = bound_s / ring_s
    busiest = workers / servers
    return Drawn(
        question=f"{workers} workers sum a long gradient through {servers} server{'s' * (servers > 1)} with links of "
        "their own. Push and pull overlap perfectly, all links are equal and full-duplex, latency is nothing. At best, "
        "how many times as long as a ring of the workers does that take?",
        answer=answer,
        steps=(
            f"A worker sends S and takes in S. A server sends n S/k = {workers}/{servers} S = {busiest:g} S.",
            f"Both directions work at once, so the bound is max(1, n/k) S/W = {max(1, busiest):g} S/W.",
            f"The ring: 2 (n-1)/n S/W = 2 · {workers - 1}/{workers} S/W = {2 * (workers - 1) / workers:.4g} S/W.",
            f"{max(1, busiest):g} / {2 * (workers - 1) / workers:.4g} = {answer:.4g}.",
        ),
        wrong=(
            (2 * answer, "You added push and pull. Here they overlap, each in its own direction."),
            (1 / answer, "You divided the other way around."),
            (max(1, busiest), "That is the bound in S/W. The question compares it with the ring."),
            (max(1, busiest) / 2, "You let the ring send 2S. It sends a little less."),
        ),
    )


@problem("shard-state", chapter="05")
def shard_state(dice: Random) -> Drawn:
    """What a server holds of a model trained with AdamW."""
    billions, servers = dice.choice((1, 7, 13, 70)), dice.choice((4, 8, 16, 32))
    answer = formulas.server_held_bytes(billions * 10**9, servers, workers=0) / 1e9
    shard = billions / servers
    return Drawn(
        question=f"{servers} servers keep a model of {billions} billion parameters in float32, with the two moments of "
        "AdamW in float32. How many GB does each server hold, without gradients?",
        answer=answer,
        unit="GB",
        steps=(
            f"N/k = {billions}/{servers} = {shard:g} billion parameters per server.",
            "4 bytes for the parameter and 4 for each of the two moments: 12 bytes per parameter.",
            f"{shard:g} · 12 = {answer:,.4g} GB.",
        ),
        wrong=(
            (billions * 12, "That is the whole model. The servers share it."),
            (shard * 16, "You counted 16 bytes, with gradients. They are left out here."),
            (shard * 8, "AdamW keeps two moments."),
            (shard * 4, "Those are the parameters alone."),
        ),
    )
