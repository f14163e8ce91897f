"""Drills of chapter 08: bytes, time and memory of tensor and sequence parallelism, the loss over a cut vocabulary."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

KIB = 2**10


@problem("tensor-bytes", chapter="08")
def tensor_bytes(dice: Random) -> Drawn:
    """The bytes that a rank sends in all blocks, per microbatch."""
    layers, width = dice.choice(((32, 4096), (40, 5120), (80, 8192)))
    tokens, n = dice.choice((2048, 4096, 8192)), dice.choice((2, 4, 8))
    activation = 2 * tokens * width
    sent = 8 * (n - 1) / n * activation * layers
    return Drawn(
        question=f"{n} tensor-parallel ranks, {layers} blocks of width {width:,}, microbatches of {tokens:,} tokens"
        " in bfloat16, no recomputation. How many GB does a rank send per microbatch in the blocks?",
        answer=sent / 1e9,
        unit="GB",
        steps=(
            f"One activation: S = {tokens:,} · {width:,} · 2 bytes = {activation / 1e6:,.1f} MB.",
            "A block has 2 all-reduces forward and 2 backward; each sends 2 (n - 1)/n S.",
            f"Per block 8 (n - 1)/n S = 8 · {n - 1}/{n} · {activation / 1e6:,.1f} MB ="
            f" {sent / layers / 1e9:.4g} GB; times {layers}: {sent / 1e9:,.4g} GB.",
        ),
        wrong=(
            (sent / 2e9, "You counted two all-reduces per block, or let each send S. Look at both."),
            (
                8 * activation * layers / 1e9,
                "You let an all-reduce send 2S. In each half of the ring a rank sends all pieces but one.",
            ),
            (sent / layers / 1e9, "That is one block."),
            (8 * (n - 1) * activation * layers / 1e9, "You forgot that a message of the ring is one piece of n."),
        ),
    )


@problem("tensor-share", chapter="08")
def tensor_share(dice: Random) -> Drawn:
    """The seconds of sending for each second of computing in a block."""
    width, n = dice.choice((4096, 8192, 12_288, 16_384)), dice.choice((4, 8, 16))
    teraflops, gigabytes = dice.choice((300, 400, 600)), dice.choice((50, 300, 450))
    computing = 72 * width**2 / n / (teraflops * 1e12)
    sending = 16 * (n - 1) / n * width / (gigabytes * 1e9)
    ratio = sending / computing
    return Drawn(
        question=f"A GPT block (12 h² weights, attention's own products left out), h = {width:,}, on {n} ranks at"
        f" {teraflops} TFLOP/s each over links of {gigabytes} GB/s, bfloat16, nothing overlapped. How many seconds of"
        " sending come to one second of computing?",
        answer=ratio,
        steps=(
            f"Computing per token: 6 · 12 h² / (n F) = 72 · {width:,}² / ({n} · {teraflops}e12) = {computing:.3g} s.",
            f"Sending per token: 8 (n - 1)/n · 2h bytes / W = 16 · {n - 1}/{n} · {width:,} / {gigabytes}e9 ="
            f" {sending:.3g} s.",
            f"The ratio is 2 (n - 1) F / (9 h W) = {ratio:.3g}: the number of tokens drops out, and n stands above.",
        ),
        wrong=(
            (1 / ratio, "You divided the other way around."),
            (
                ratio * n / (n - 1),
                "You let an all-reduce send 2S. In each half of the ring a rank sends all pieces but one.",
            ),
            (ratio / n, "You let each rank compute the whole block. It is cut over the ranks."),
            (3 * ratio, "You counted the forward products only, and all four all-reduces."),
            (ratio / 2, "You let an all-reduce send S. It sends nearly twice that."),
        ),
    )


@problem("sequence-memory", chapter="08")
def sequence_memory(dice: Random) -> Drawn:
    """What a block keeps of its activations under sequence parallelism, and without it."""
    width, tokens = dice.choice((4096, 8192, 12_288)), dice.choice((2048, 4096, 8192))
    n, layers = dice.choice((2, 4, 8)), dice.choice((32, 80, 96))
    unit = tokens * width * layers
    tensor, sequence = (10 + 24 / n) * unit, 34 / n * unit
    return Drawn(
        question=f"Korthikanti et al. count 34 bytes per token and unit of width that a block keeps (bfloat16, flash"
        f" attention; what is gathered is not kept), {layers} blocks, h = {width:,}, {tokens:,} tokens, {n} ranks."
        " How many GB per rank does sequence parallelism save over tensor parallelism alone?",
        answer=(tensor - sequence) / 1e9,
        unit="GB",
        steps=(
            f"Tensor parallelism: 10 bytes stay whole (norms, inputs, dropout masks), 24 are cut: 10 + 24/{n}"
            f" = {10 + 24 / n:.4g}.",
            f"With sequence parallelism all 34 are cut: 34/{n} = {34 / n:.4g}.",
            f"The difference is 10 (n - 1)/n = {10 * (n - 1) / n:.4g} bytes; times {tokens:,} · {width:,} · {layers}"
            f" = {(tensor - sequence) / 1e9:,.4g} GB.",
        ),
        wrong=(
            (sequence / 1e9, "That is what sequence parallelism keeps. The question asks what it saves."),
            (tensor / 1e9, "That is what tensor parallelism alone keeps. The question asks for a difference."),
            (10 * unit / 1e9, "You saved all of what is not cut. A rank keeps its share of it."),
            ((34 * unit - sequence) / 1e9, "You compared with one GPU. Tensor parallelism cuts a part already."),
        ),
    )


@problem("vocabulary-loss", chapter="08")
def vocabulary_loss(dice: Random) -> Drawn:
    """The bytes that the loss over a cut vocabulary sends."""
    vocab, tokens = dice.choice((32_000, 50_304, 128_256, 152_064)), dice.choice((4096, 8192, 16_384))
    n = dice.choice((2, 4, 8))
    gathered, loss = ((n - 1) / n * count * tokens * 4 for count in (vocab, 6))
    return Drawn(
        question=f"{tokens:,} tokens, a vocabulary of {vocab:,} cut over {n} ranks, float32. How many KiB does a rank"
        " send for the loss, forward and backward, if the logits are never gathered?",
        answer=loss / KIB,
        unit="KiB",
        steps=(
            "Three all-reduces of one number per token: the maximum, the sum of exponentials, the target's logit.",
            f"Gathering the logits would send (n - 1)/n · t V · 4 bytes = {gathered / KIB / 1024:,.4g} MiB: V/6 ="
            f" {vocab / 6:,.0f} times as much.",
            f"3 · 2 (n - 1)/n · t · 4 bytes = 6 · {n - 1}/{n} · {tokens:,} · 4 = {loss / KIB:,.4g} KiB; backward none.",
        ),
        wrong=(
            (gathered / KIB, "You gathered the logits."),
            (loss / 3 / KIB, "You counted one all-reduce."),
            (loss * 2 / 3 / KIB, "You counted two all-reduces. The target's logit is on one rank only."),
            (
                2 * loss / KIB,
                "You counted the backward pass as well. It needs no message: each rank has its own logits.",
            ),
            (loss / 2 / KIB, "You let an all-reduce send S. It sends nearly twice that."),
        ),
    )
