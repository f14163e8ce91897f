"""Drills of chapter 00: what a step sends, how long its messages take, what one slow rank costs."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.network import Link, ring_cost


@problem("step-bytes", chapter="00")
def step_bytes(dice: Random) -> Drawn:
    """What each rank sends in a step of data-parallel training."""
    ranks, millions, item = dice.choice((4, 8, 16, 32)), dice.choice((10, 25, 110, 350)), dice.choice((2, 4))
    size = millions * 10**6 * item
    answer = ring_cost("all_reduce", ranks, size).sent_bytes / 1e6
    kind = {2: "bfloat16", 4: "float32"}[item]
    return Drawn(
        question=f"{ranks} ranks train a model of {millions} million parameters data-parallel. Gradients are "
        f"{kind}, and all-reduced by a ring in each step. How many MB does each rank send per step?",
        answer=answer,
        unit="MB",
        steps=(
            f"S = {millions} million · {item} bytes = {size / 1e6:g} MB.",
            f"A ring sends 2 (n-1)/n S per rank: n - 1 = {ranks - 1} pieces of S/n to add up, as many to hand round.",
            f"2 · {ranks - 1}/{ranks} · {size / 1e6:g} MB = {answer:,.5g} MB.",
        ),
        wrong=(
            (2 * size / 1e6, "You let a rank send 2S. In each half of the ring it sends all pieces but one."),
            ((ranks - 1) * size / 1e6, "You sent all gradients to every other rank. A ring adds them up on the way."),
            (answer / 2, "That is one half of the ring: what was added up must be handed round as well."),
            (answer / item, "You counted numbers. The question asks for bytes."),
        ),
    )


@problem("latency-or-bytes", chapter="00")
def latency_or_bytes(dice: Random) -> Drawn:
    """How long a step's all-reduces take, one for each tensor."""
    ranks, tensors, micros = dice.choice((4, 8, 16)), dice.choice((40, 100, 150, 300)), dice.choice((10, 20, 50))
    size_mb, gbit = dice.choice((100, 200, 500)), dice.choice((100, 200, 400))
    link = Link(micros * 1e-6, gbit * 1e9 / 8)
    answer = 1e3 * tensors * ring_cost("all_reduce", ranks, size_mb * 1e6 / tensors).seconds(link)
    rounds = tensors * 2 * (ranks - 1)
    latency_ms = rounds * micros * 1e-3
    bytes_ms = 2 * (ranks - 1) / ranks * size_mb / (gbit / 8)
    return Drawn(
        question=f"{ranks} ranks all-reduce {size_mb} MB of gradients by a ring, in {tensors} equal tensors one after "
        f"another. A message has a latency of {micros} µs, and its bytes go over {gbit} Gbit/s. How many ms does that "
        "take per step?",
        answer=answer,
        unit="ms",
        steps=(
            f"Messages one after another: {tensors} · 2 (n-1) = {tensors} · {2 * (ranks - 1)} = {rounds:,}.",
            f"Latency: {rounds:,} · {micros} µs = {latency_ms:,.4g} ms.",
            f"Bytes: 2 · {ranks - 1}/{ranks} · {size_mb} MB / {gbit / 8:g} GB/s = {bytes_ms:,.4g} ms.",
            f"Together {answer:,.4g} ms.",
        ),
        wrong=(
            (bytes_ms, "You left out the latency of the messages."),
            (
                bytes_ms + latency_ms / tensors,
                "You counted the latency of one tensor. Each tensor has its own messages.",
            ),
            (
                bytes_ms + tensors * micros * 1e-3,
                "One latency a tensor: a ring needs several messages for each, one after another.",
            ),
            (bytes_ms / 8 + latency_ms, "You took Gbit/s for GB/s."),
        ),
    )


@problem("slow-rank", chapter="00")
def slow_rank(dice: Random) -> Drawn:
    """The speed that one slow rank leaves to a synchronous job."""
    ranks, slower, ms = dice.choice((8, 64, 512, 2048)), dice.choice((10, 20, 25, 30, 50)), dice.choice((200, 400, 800))
    share = dice.choice((0, 10, 20))
    compute_ms = ms * (100 - share) / 100
    answer = compute_ms * (1 + slower / 100) + ms - compute_ms
    return Drawn(
        question=f"A synchronous step on {ranks} equal ranks takes {ms} ms, of which {share} % is communication that "
        f"nothing hides. On one rank computing now takes {slower} % longer. How many ms does a step take?",
        answer=answer,
        unit="ms",
        tolerance=0.01,
        steps=(
            f"Computing takes {compute_ms:g} ms of {ms}; communication the other {ms - compute_ms:g} ms.",
            f"All wait for the slow rank, however many they are: {compute_ms:g} · {1 + slower / 100:g} ms.",
            f"{compute_ms * (1 + slower / 100):g} + {ms - compute_ms:g} = {answer:g} ms.",
        ),
        wrong=(
            (ms * (1 + slower / 100), "You slowed down the communication too. Only computing takes longer."),
            (
                ms + compute_ms * slower / 100 / ranks,
                "You spread the delay over all ranks. In a synchronous step all wait for the slowest.",
            ),
            (ms, "Nothing hides the delay of one rank: the others wait for it in the all-reduce."),
        ),
    )
