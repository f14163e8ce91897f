"""Drills of chapter 09: bubble, microbatches, activations and messages of a pipeline."""

from math import ceil
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem


@problem("pipeline-bubble", chapter="09")
def pipeline_bubble(dice: Random) -> Drawn:
    """The share of a step in which a rank stands idle."""
    p, v, rounds = dice.choice((4, 8, 16)), dice.choice((1, 1, 2, 4)), dice.choice((1, 2, 4, 8))
    m = rounds * p
    idle = (p - 1) / (v * m + p - 1)
    kind = "1F1B" if v == 1 else f"interleaved 1F1B with v = {v} chunks per rank"
    return Drawn(
        question=f"{kind}, p = {p} ranks, m = {m} microbatches, equal stages, messages cost nothing. Which share of the"
        " step is bubble?",
        answer=100 * idle,
        unit="%",
        steps=(
            f"In chunks of 1/v of a rank's layers: work v·m = {v * m}, idle p - 1 = {p - 1}.",
            f"Idle / work, the papers' number: {p - 1}/{v * m} = {(p - 1) / (v * m):.1%}.",
            f"Idle / step: {p - 1}/({v * m} + {p - 1}) = {idle:.1%}.",
        ),
        wrong=(
            (
                100 * (p - 1) / (v * m),
                "That is idle time per work, the papers' number. The question asks for the share of the step.",
            ),
            (100 * (p - 1) / (m + p - 1), "You took one chunk per rank. With more of them the pipeline fills sooner."),
            (100 * p / (v * m + p), "You counted p idle slots. A rank works in one of them."),
            (100 * (1 - idle), "That is the share in which a rank works."),
        ),
    )


@problem("pipeline-microbatches", chapter="09")
def pipeline_microbatches(dice: Random) -> Drawn:
    """The fewest microbatches for a bubble that one accepts."""
    p, v, percent = dice.choice((4, 8, 16)), dice.choice((1, 2, 4)), dice.choice((5, 10, 20))
    needed = (p - 1) * 100 / (percent * v)
    m = ceil(needed / p) * p
    return Drawn(
        question=f"Interleaved 1F1B with p = {p} ranks and v = {v} chunks per rank (v = 1 is 1F1B). Idle time may be"
        f" {percent} % of the work at most, and m must be a multiple of p. How many microbatches are needed?",
        answer=m,
        unit="microbatches",
        tolerance=0.001,
        steps=(
            f"Idle / work = (p - 1)/(v·m) <= {percent / 100:g}.",
            f"m >= {p - 1}/({v} · {percent / 100:g}) = {needed:.4g}.",
            f"Rounded up to a multiple of {p}: {m}.",
        ),
        wrong=(
            (
                ceil((p - 1) * (100 / percent - 1) / v / p) * p,
                "You took the share of the step. Here idle time is compared with work.",
            ),
            (ceil((p - 1) * 100 / percent / p) * p, "You took one chunk per rank."),
            (m - p, "You rounded down. Then idle time is too long."),
            (needed, "It must be a multiple of p."),
            (ceil(p * 100 / (percent * v) / p) * p, "You counted p idle slots. A rank works in one of them."),
        ),
    )


@problem("pipeline-activations", chapter="09")
def pipeline_activations(dice: Random) -> Drawn:
    """The activations that one rank of a schedule holds at its peak."""
    p, gb = dice.choice((4, 8, 16)), dice.choice((0.5, 1, 2))
    r, m = dice.randrange(p), p * dice.choice((2, 4, 8))
    kind, held, rule = dice.choice(
        (
            ("GPipe", m, "m: nothing is freed before the last forward"),
            ("1F1B", p - r, "min(p - r, m): p - 1 - r run ahead, and one is in work"),
            ("ZB-H2", 2 * p - 1, "min(2p - 1, m), as nothing is freed before the weight half"),
        )
    )
    return Drawn(
        question=f"{kind}, p = {p}, m = {m}. One microbatch leaves {gb:g} GB of activations on a rank, freed when its"
        f" whole backward pass is over. How many GB does rank {r} (counted from 0) hold at its peak?",
        answer=held * gb,
        unit="GB",
        steps=(f"{kind} holds {rule}.", f"Here {held} microbatches.", f"{held} · {gb:g} = {held * gb:g} GB."),
        wrong=(
            (m * gb, "That is GPipe's: all microbatches at once."),
            ((p - r) * gb, "That is 1F1B's. This schedule holds something else."),
            ((2 * p - 1) * gb, "That is ZB-H2's. This schedule holds something else."),
            (
                (r + 1) * gb if kind == "1F1B" else 0,
                "You counted from the other end. The first stage waits longest for its first backward pass.",
            ),
            (p * gb, "That is rank 0 of 1F1B."),
            (gb, "That is one microbatch. Several are on their way."),
        ),
    )


@problem("pipeline-message", chapter="09")
def pipeline_message(dice: Random) -> Drawn:
    """The time of one message against the time of a stage's forward pass."""
    (billions, h), p = dice.choice(((7, 4096), (13, 5120))), dice.choice((4, 8))
    t, gigabits, teraflops = dice.choice((4096, 8192)), dice.choice((100, 200, 400)), 400
    sent = 2 * t * h
    message_ms = 1e3 * sent / (gigabits * 1e9 / 8)
    forward_ms = 1e3 * 2 * billions * 1e9 / p * t / (teraflops * 1e12)
    return Drawn(
        question=f"{billions} billion parameters, h = {h:,}, p = {p} stages of one GPU each. Microbatches of {t:,}"
        f" tokens in bfloat16, one card of {gigabits} Gbit/s per GPU, {teraflops} TFLOP/s. How many per cent of"
        " a stage's forward pass does one message take?",
        answer=100 * message_ms / forward_ms,
        unit="%",
        steps=(
            f"Message: 2·t·h = 2 · {t:,} · {h:,} = {sent / 1e6:,.4g} MB; at {gigabits / 8:g} GB/s {message_ms:.4g} ms.",
            f"Forward: 2·N/p·t = 2 · {billions}e9/{p} · {t:,} FLOPs; at {teraflops} TFLOP/s {forward_ms:,.4g} ms.",
            f"{message_ms:.4g} / {forward_ms:,.4g} = {message_ms / forward_ms:.2%}; t cancels.",
        ),
        wrong=(
            (100 * message_ms / forward_ms / 8, "You took Gbit/s for GB/s."),
            (200 * message_ms / forward_ms, "You counted 4 bytes per number, or N FLOPs per token. Look at both."),
            (
                100 * message_ms / forward_ms / p,
                "You compared with the whole model. A stage has its part of the layers.",
            ),
            (100 * message_ms / forward_ms / 3, "You compared with forward and backward passes."),
            (100 * forward_ms / message_ms, "You divided the other way around."),
        ),
    )
