"""Drills of chapter 07: bytes of a cut, time of stages, ways that fit, and what tensor parallelism costs."""

from math import ceil
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.network import price


@problem("cut-bytes", chapter="07")
def cut_bytes(dice: Random) -> Drawn:
    """What a cut by layers sends, against the gradients of data parallelism."""
    billions, width = dice.choice(((7, 4096), (13, 5120), (30, 6656), (70, 8192)))
    tokens, n = dice.choice((2048, 4096, 8192, 16_384)), dice.choice((2, 4, 8))
    cut_gb = 2 * 2 * tokens * width / 1e9
    copied_gb = price("all_reduce", n, 2 * billions * 1e9).sent_bytes / 1e9
    return Drawn(
        question=f"{billions} billion parameters, width {width:,}, bfloat16. A step of {tokens:,} tokens crosses a cut"
        f" by layers, forward and back. How many times as many bytes as the cut moves both ways does a rank of data"
        f" parallelism over {n} ranks send for its gradients (16 bits, a ring)?",
        answer=copied_gb / cut_gb,
        unit="times",
        steps=(
            f"The cut: an activation there, a gradient back, 2 · {tokens:,} · {width:,} · 2 bytes = {cut_gb:.4g} GB.",
            f"The ring: 2 (n - 1)/n · 2N = 2 · {n - 1}/{n} · {2 * billions} GB = {copied_gb:.4g} GB.",
            f"{copied_gb:.4g} / {cut_gb:.4g} = {copied_gb / cut_gb:,.0f}.",
        ),
        wrong=(
            (2 * copied_gb / cut_gb, "You let the cut move one way. A gradient comes back."),
            (copied_gb / cut_gb / 2, "That is one half of the ring, or a cut in float32."),
            (
                2 * 2 * billions / cut_gb,
                "You let a rank send 2S. In each half of the ring it sends all pieces but one.",
            ),
            (cut_gb / copied_gb, "You divided the other way around."),
        ),
    )


@problem("pipeline-speedup", chapter="07")
def pipeline_speedup(dice: Random) -> Drawn:
    """How much faster p stages with m microbatches are than one rank."""
    p, m = dice.choice((2, 4, 8, 16)), dice.choice((1, 4, 8, 16, 32))
    faster = m * p / (m + p - 1)
    return Drawn(
        question=f"A model is cut into {p} equal stages; a step has {m} microbatch{'es' * (m > 1)} under 1F1B; messages"
        " are free. How many times as fast as one rank is it?",
        answer=faster,
        unit="times",
        steps=(
            f"One rank needs T. A stage needs T/(p m) = T/{p * m} per microbatch.",
            f"The step ends after m + p - 1 = {m + p - 1} of these: m, and p - 1 to fill and drain.",
            f"T / (T · {m + p - 1}/{p * m}) = {p * m}/{m + p - 1} = {faster:.4g}.",
        ),
        wrong=(
            (p, "That is without a bubble. The pipeline must fill and drain."),
            (m / (m + p - 1), "That is the share of the time in which a stage works."),
            (p * (1 - (p - 1) / m), "You took (p - 1)/m for the idle share of a step. It is the idle time per work."),
            (m * p / (m + p), "You counted one slot too many to fill and drain."),
            (1 / faster, "You divided the other way around."),
        ),
    )


@problem("ways-to-fit", chapter="07")
def ways_to_fit(dice: Random) -> Drawn:
    """The fewest ways to cut a model so that its states fit."""
    billions, card_gb = dice.choice((13, 34, 70, 110, 180, 405)), dice.choice((40, 80, 141))
    share = dice.choice((0.5, 0.6))
    per_parameter = dice.choice((16, 18))
    room_gb = card_gb * share
    ways = ceil(round(per_parameter * billions / room_gb, 9))
    return Drawn(
        question=f"{billions} billion parameters with {per_parameter} bytes of states each. Of {card_gb} GB per GPU,"
        f" {share:.0%} may go to states, which no copy shards. Into how many ways must the model be cut at least?",
        answer=ways,
        unit="ways",
        tolerance=0.001,
        steps=(
            f"States: {per_parameter} · {billions} = {per_parameter * billions:,} GB.",
            f"Room per GPU: {share:g} · {card_gb} = {room_gb:g} GB.",
            f"{per_parameter * billions:,} / {room_gb:g}, rounded up: {ways}."
            " In practice the next product of tensor and pipeline ways that divide heads and layers.",
        ),
        wrong=(
            (ceil(round(per_parameter * billions / card_gb, 9)), "You filled the whole GPU with states."),
            (ceil(round(2 * billions / room_gb, 9)), "You counted the 16-bit weights alone."),
            (ways - 1, "You rounded down. So few ways do not hold it."),
            (per_parameter * billions / room_gb, "There are no parts of ways: round it."),
        ),
    )


@problem("tensor-time", chapter="07")
def tensor_time(dice: Random) -> Drawn:
    """The share of a block's time that the all-reduces of tensor parallelism take."""
    width, n = dice.choice((4096, 8192, 12_288)), dice.choice((2, 4, 8))
    gigabytes, teraflops = dice.choice((50, 225, 450)), dice.choice((200, 400))
    sent = 4 * price("all_reduce", n, 2 * width).sent_bytes  # per token
    talking_s, computing_s = sent / (gigabytes * 1e9), 6 * 12 * width**2 / n / (teraflops * 1e12)
    return Drawn(
        question=f"A block of 12 h² parameters, h = {width:,}, cut inside layers over {n} ranks: 4 all-reduces of h"
        f" bfloat16 numbers per token, links of {gigabytes} GB/s, {teraflops} TFLOP/s per GPU, nothing hidden, no"
        " latency. Which share of the block's time is communication?",
        answer=100 * talking_s / (talking_s + computing_s),
        unit="%",
        steps=(
            f"Sent per token: 4 · 2 (n - 1)/n · 2h = {sent:,} bytes: {talking_s * 1e9:.4g} ns.",
            f"Computed per token: 6 · 12 h²/n = {72 * width**2 / n:.4g} FLOPs: {computing_s * 1e9:.4g} ns.",
            f"{talking_s * 1e9:.4g} / ({talking_s * 1e9:.4g} + {computing_s * 1e9:.4g})"
            f" = {100 * talking_s / (talking_s + computing_s):.3g} %.",
        ),
        wrong=(
            (100 * talking_s / computing_s, "You divided by the computing alone. The block's time holds both."),
            (
                100 * talking_s / (talking_s + n * computing_s),
                "You let each rank compute the whole block. It is cut over the ranks.",
            ),
            (
                100 * talking_s / (talking_s + computing_s / 3),
                "You counted the forward products only, and all four all-reduces.",
            ),
            (
                100 * talking_s / (talking_s + 2 * computing_s),
                "You let an all-reduce send S. It sends nearly twice that.",
            ),
            (100 * computing_s / (talking_s + computing_s), "That is the share of computing."),
        ),
    )
