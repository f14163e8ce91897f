"""Drills of chapter 10: bytes of ring attention and Ulysses, causal balance, dispatch and capacity of experts."""

from math import ceil
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem


@problem("cp-bytes", chapter="10")
def cp_bytes(dice: Random) -> Drawn:
    """The bytes that a rank sends for attention, by a ring or by Ulysses."""
    heads, kv_heads, width = dice.choice(((32, 32, 4096), (32, 8, 4096), (64, 8, 8192)))
    tokens, n = dice.choice((32_768, 65_536, 131_072)), dice.choice((2, 4, 8))
    own = tokens // n
    query, keys = 2 * own * width, 2 * own * width * kv_heads // heads  # bytes; outputs as queries, values as keys
    ring = dice.choice((True, False))
    sent = 4 * (n - 1) * 2 * keys if ring else 2 * (n - 1) / n * 2 * (query + keys)
    way = "by a ring (sums of gradients travel in float32)" if ring else "by Ulysses"
    shard = f"A rank has {tokens:,}/{n} = {own:,} tokens: queries are {query / 1e6:,.1f} MB, keys {keys / 1e6:,.1f} MB."
    steps = (
        (
            f"Keys and values of a rank: S_KV = 2 · {keys / 1e6:,.1f} = {2 * keys / 1e6:,.1f} MB.",
            "Forward n - 1 messages of S_KV; backward as many, and n - 1 of gradients, twice as large: 4 (n - 1) S_KV.",
            f"4 · {n - 1} · {2 * keys / 1e6:,.1f} MB = {sent / 1e9:,.4g} GB.",
        )
        if ring
        else (
            "Queries, keys, values and outputs each cross by an all-to-all, which sends"
            f" (n - 1)/n = {n - 1}/{n} of a rank's tensor.",
            f"Forward: {n - 1}/{n} · 2 ({query / 1e6:,.1f} + {keys / 1e6:,.1f}) MB; backward as much.",
            f"Together {sent / 1e9:,.4g} GB.",
        )
    )
    return Drawn(
        question=f"One sequence of {tokens:,} tokens over {n} ranks, width {width:,}, {heads} query heads and"
        f" {kv_heads} key-value heads, bfloat16, attention {way}. How many GB does a rank send per layer, forward and"
        " backward?",
        answer=sent / 1e9,
        unit="GB",
        steps=(shard, *steps),
        wrong=(
            (
                (2 * (n - 1) / n * 2 * (query + keys) if ring else 4 * (n - 1) * 2 * keys) / 1e9,
                "That is the other way of the two, ring and Ulysses.",
            ),
            (sent / (4 if ring else 2) / 1e9, "That is the forward pass alone."),
            (sent / 1e9 * 3 / 4 if ring else 0, "You sent gradients in 16 bits. Their sums travel in float32."),
            (0 if ring else sent / 1e9 * n / (n - 1), "You sent what stays on its rank, too."),
            (
                sent / 1e9 * heads / kv_heads if ring else 2 * (n - 1) / n * 4 * query / 1e9,
                "You gave keys and values as many heads as queries have.",
            ),
        ),
    )


@problem("cp-slowest", chapter="10")
def cp_slowest(dice: Random) -> Drawn:
    """The causal work of the slowest rank against the mean."""
    n, block = dice.choice((2, 4, 8, 16)), dice.choice((512, 1024, 4096))
    pairs = (n - 1) * block**2 + block * (block + 1) // 2
    mean = n * block * (n * block + 1) / 2 / n
    return Drawn(
        question=f"Causal attention over {n} ranks, each with {block:,} consecutive tokens. Count pairs of a query and"
        " a key that it sees. How many times as much as the mean does the slowest rank compute? (Zig-zag: once.)",
        answer=pairs / mean,
        steps=(
            f"The last rank's queries see all {n - 1} blocks before them and half of their own:"
            f" {n - 1} (s/n)² + s/n (s/n + 1)/2, s/n = {block:,}.",
            f"All pairs: s (s + 1)/2 with s = {n} · {block:,}; the mean is 1/{n} of that.",
            f"{pairs:,} / {mean:,.0f} = {pairs / mean:.3f}, nearly 2 - 1/n = {2 - 1 / n:.3f}.",
        ),
        wrong=(
            (
                n * block**2 / mean,
                "You counted the last rank's own block whole. A query does not see what comes after it.",
            ),
            (pairs / (block * (block + 1) / 2), "You compared with the fastest rank. The question asks for the mean."),
            (n, "You gave the slowest rank all of the work."),
            ((n - 1) * block**2 / mean, "You left out the last rank's own block."),
        ),
    )


@problem("ep-dispatch", chapter="10")
def ep_dispatch(dice: Random) -> Drawn:
    """The bytes that a rank sends for one layer of experts."""
    width, chosen = dice.choice(((4096, 2), (7168, 8), (5120, 6), (2048, 8)))
    tokens, n = dice.choice((2048, 4096, 8192)), dice.choice((4, 8, 16, 64))
    once = (n - 1) / n * chosen * tokens * width * 2
    return Drawn(
        question=f"{n} expert-parallel ranks with {tokens:,} tokens each, {chosen} experts per token, width {width:,},"
        " bfloat16, balanced routing, a copy sent for each choice. How many GB does a rank send per layer of experts,"
        " forward and backward?",
        answer=4 * once / 1e9,
        unit="GB",
        steps=(
            f"Copies: K·t = {chosen} · {tokens:,}, each of h·e = {width:,} · 2 bytes.",
            f"Of these (n - 1)/n = {n - 1}/{n} leave the rank: {once / 1e9:.4g} GB.",
            f"Dispatch and combine forward, and both again backward: 4 · {once / 1e9:.4g} = {4 * once / 1e9:.4g} GB.",
        ),
        wrong=(
            (2 * once / 1e9, "That is the forward pass alone."),
            (once / 1e9, "That is one dispatch. The results come back, and the backward pass does both again."),
            (4 * chosen * tokens * width * 2 / 1e9, "You sent what stays on its rank, too."),
            (4 * once / chosen / 1e9, "You sent one copy per token. One is sent for each choice."),
        ),
    )


@problem("ep-dropped", chapter="10")
def ep_dropped(dice: Random) -> Drawn:
    """The choices that a capacity drops."""
    factor, chosen, tokens, experts = dice.choice((1.0, 1.25, 1.5)), dice.choice((1, 2)), 512, 4
    shares = dice.sample((0.5, 0.25, 0.15, 0.1), 4)
    load = [round(share * chosen * tokens) for share in shares]
    load[-1] = chosen * tokens - sum(load[:-1])
    capacity = ceil(factor * chosen * tokens / experts)
    over = [max(0, each - capacity) for each in load]
    return Drawn(
        question=f"{experts} experts, {tokens} tokens with {chosen} choice{'s' if chosen > 1 else ''} each, capacity"
        f" factor {factor:g}. The router sends {', '.join(map(str, load))} choices to the four. How many per cent of"
        " the choices are dropped?",
        answer=100 * sum(over) / sum(load),
        unit="%",
        steps=(
            f"C = ⌈factor · K·t/E⌉ = ⌈{factor:g} · {chosen} · {tokens}/{experts}⌉ = {capacity} per expert.",
            f"Beyond it: {' + '.join(map(str, over))} = {sum(over)}.",
            f"{sum(over)}/{sum(load)} = {sum(over) / sum(load):.2%}.",
        ),
        wrong=(
            (100 * sum(over) / tokens, "You divided by the tokens. The question asks about choices."),
            (100 - 100 * sum(over) / sum(load), "That is what is kept."),
            (
                100 * sum(max(0, each - chosen * tokens / experts) for each in load) / sum(load),
                "You left out the capacity factor.",
            ),
            (100 * sum(over) / max(load), "You divided by the fullest expert's choices."),
        ),
    )
