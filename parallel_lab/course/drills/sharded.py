"""Drills of chapter 06: memory, ranks, bytes and tokens of sharded data parallelism."""

from math import ceil
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

KEPT = {1: "2 + 2 + 12/n", 2: "2 + (2 + 12)/n", 3: "(2 + 2 + 12)/n"}


@problem("zero-memory", chapter="06")
def zero_memory(dice: Random) -> Drawn:
    """The model states of one rank under a ZeRO stage."""
    billions, stage, n = dice.choice((3, 7, 13, 20, 30)), dice.choice((1, 2, 3)), dice.choice((8, 16, 32, 64))
    whole = {1: 4, 2: 2, 3: 0}[stage]
    per_parameter = whole + (16 - whole) / n
    held_gb = per_parameter * billions
    return Drawn(
        question=f"{billions} billion parameters, Adam in mixed precision (2 + 2 + 12), ZeRO stage {stage}, {n} ranks."
        " How many GB of model states does a rank hold?",
        answer=held_gb,
        unit="GB",
        steps=(
            f"Stage {stage} keeps {KEPT[stage]} bytes per parameter.",
            f"With n = {n}: {whole} + {16 - whole}/{n} = {per_parameter:.4g} bytes per parameter.",
            f"{per_parameter:.4g} · {billions} billion = {held_gb:,.4g} GB.",
        ),
        wrong=(
            ((4 + 12 / n) * billions, "That is stage 1: it shards the optimizer's state only."),
            ((2 + 14 / n) * billions, "That is stage 2: it shards the optimizer's state and the gradients."),
            (16 / n * billions, "That is stage 3: it shards everything."),
            (16 * billions, "That is without any sharding."),
        ),
    )


@problem("zero-ranks", chapter="06")
def zero_ranks(dice: Random) -> Drawn:
    """The fewest ranks on which the model states fit."""
    billions, card_gb = dice.choice((30, 70, 110, 180, 405)), dice.choice((40, 80, 141))
    share = dice.choice((0.25, 0.5))  # what activations and buffers leave for the states
    room_gb = card_gb * share
    ranks = ceil(16 * billions / room_gb)
    return Drawn(
        question=f"{billions} billion parameters under stage 3 (16 bytes per parameter). Of {card_gb} GB per GPU,"
        f" {share:.0%} may go to model states. How many GPUs are needed at least?",
        answer=ranks,
        unit="GPUs",
        tolerance=0.001,
        steps=(
            f"All states: 16 · {billions} = {16 * billions:,} GB.",
            f"Room per GPU: {share:g} · {card_gb} = {room_gb:g} GB.",
            f"{16 * billions:,} / {room_gb:g}, rounded up: {ranks:,} GPUs.",
        ),
        wrong=(
            (ceil(16 * billions / card_gb), "You filled the whole GPU with model states."),
            (ceil(2 * billions / room_gb), "You counted the 16-bit weights alone."),
            (ranks - 1, "You rounded down. So many GPUs do not hold it."),
            (16 * billions / room_gb, "There are no parts of GPUs: round it."),
        ),
    )


@problem("zero-bytes", chapter="06")
def zero_bytes(dice: Random) -> Drawn:
    """The bytes that a rank of stage 3 sends per step, with gradient accumulation."""
    billions, n, m = dice.choice((1, 3, 7, 13)), dice.choice((8, 16, 64)), dice.choice((1, 2, 4, 8))
    reduced = dice.choice((2, 4))
    share, per_parameter = (n - 1) / n, 2 * m * 2 + reduced
    sent_gb = share * per_parameter * billions
    return Drawn(
        question=f"Stage 3, {billions} billion parameters gathered in bfloat16, {n} ranks, {m} microbatches per step;"
        f" gradients are reduced once, in {reduced} bytes each. How many GB does a rank send per step?",
        answer=sent_gb,
        unit="GB",
        steps=(
            f"All-gathers: 2 per microbatch, 2 bytes each: 2 · {m} · 2 = {4 * m} bytes per parameter.",
            f"One reduce-scatter: {reduced} bytes per parameter. Together {per_parameter}.",
            f"(n - 1)/n · {per_parameter} · {billions} = {n - 1}/{n} · {per_parameter * billions} = {sent_gb:,.4g} GB.",
        ),
        wrong=(
            (per_parameter * billions, "You forgot that a rank keeps its own shard: the factor (n - 1)/n."),
            (
                share * (2 * m + reduced) * billions,
                "You gathered once per microbatch. Weights are freed in between, and gathered again.",
            ),
            (share * m * (4 + reduced) * billions, "You reduced the gradients of every microbatch."),
            (share * (4 + reduced) * billions, "You took one microbatch."),
            (
                share * (4 * m + 2 * reduced) * billions,
                "You all-reduced the gradients. A shard's owner alone needs their sum.",
            ),
        ),
    )


@problem("fsdp-tokens", chapter="06")
def fsdp_tokens(dice: Random) -> Drawn:
    """The tokens per GPU and step from which stage 3 can hide its communication."""
    teraflops, cards, gigabits = dice.choice((250, 400, 450)), dice.choice((1, 2, 4, 8)), dice.choice((100, 200, 400))
    bytes_per_s = cards * gigabits * 1e9 / 8
    tokens = teraflops * 1e12 / bytes_per_s
    return Drawn(
        question=f"FSDP in bfloat16, gradients too, over many nodes with {cards} card{'s' * (cards > 1)} of {gigabits}"
        f" Gbit/s each, {teraflops} TFLOP/s per GPU. From how many tokens per GPU and step can it hide (a bound)?",
        answer=tokens,
        unit="tokens",
        steps=(
            f"W of the ring is what a node's cards carry: {cards} · {gigabits}/8 = {bytes_per_s / 1e9:g} GB/s.",
            "Forward: 2N bytes behind 2Nt FLOPs. Backward: 4N bytes behind 4Nt. Both give t = F/W.",
            f"{teraflops}e12 / {bytes_per_s / 1e9:g}e9 = {tokens:,.0f} tokens.",
        ),
        wrong=(
            (tokens / 8, "You took Gbit/s for GB/s."),
            (tokens * cards, "You took one card. A ring over nodes may use all cards of a node."),
            (tokens * 8, "You gave each GPU an eighth of the cards. The ring crosses a node's edge once, with all."),
            (2 * tokens, "You sent twice as much. A gather or a reduce-scatter is half of an all-reduce."),
        ),
    )
