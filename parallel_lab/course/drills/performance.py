"""Drills of chapter 14: utilization from throughput, exposed communication, recomputation, and the critical batch."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.model.budget import LLAMA3_8B, LLAMA3_70B, LLAMA3_405B, layer_activation_bytes

SHAPES = {"8B": LLAMA3_8B, "70B": LLAMA3_70B, "405B": LLAMA3_405B}


@problem("perf-mfu", chapter="14")
def perf_mfu(dice: Random) -> Drawn:
    """The MFU of a job from the tokens that a GPU does per second."""
    name = dice.choice(tuple(SHAPES))
    shape, seq = SHAPES[name], dice.choice((4096, 8192))
    flops = 6 * shape.matmul_parameters + 12 * shape.layers * shape.width * seq
    rate = round(dice.uniform(0.18, 0.46) * 989e12 / flops, -1 if name != "405B" else 0)
    mfu = flops * rate / 989e12
    return Drawn(
        question=f"Llama 3 {name}: {shape.matmul_parameters / 1e9:.4g} billion weights that a token is multiplied with,"
        f" {shape.layers} layers of width {shape.width:,}, sequences of {seq:,} tokens. An H100 (989 TFLOP/s dense in"
        f" bfloat16) does {rate:,.0f} tokens per second. How many per cent is the MFU, with attention counted over the"
        " whole square?",
        answer=100 * mfu,
        unit="%",
        steps=(
            f"A token costs 6N + 12 L h s = {6 * shape.matmul_parameters / 1e9:,.1f} +"
            f" {12 * shape.layers * shape.width * seq / 1e9:,.1f} = {flops / 1e9:,.1f} GFLOPs.",
            f"{rate:,.0f} tokens per second are {flops * rate / 1e12:,.1f} TFLOP/s.",
            f"{flops * rate / 1e12:,.1f} / 989 = {100 * mfu:.3g} %.",
        ),
        wrong=(
            (600 * shape.matmul_parameters * rate / 989e12, "You left out attention's own products."),
            (100 * mfu / 3, "You counted the forward pass only."),
            (100 * mfu * 4 / 3, "You counted a second forward pass. That is HFU with full recomputation."),
            (
                (600 * shape.matmul_parameters + 600 * shape.layers * shape.width * seq) * rate / 989e12,
                "You counted half of attention's square.",
            ),
        ),
    )


@problem("perf-exposed", chapter="14")
def perf_exposed(dice: Random) -> Drawn:
    """The communication that equal buckets leave exposed behind a backward pass."""
    q, backward_ms, n = dice.choice((4, 5, 8, 10)), dice.choice((80, 120, 200)), dice.choice((4, 8, 16))
    size_mb, link = dice.choice((400, 800, 1600)), dice.choice((10, 25, 50))
    each_ms = 2 * (n - 1) / n * size_mb / link / q
    part_ms = backward_ms / q
    exposed = each_ms if each_ms <= part_ms else part_ms + q * each_ms - backward_ms
    hides = (
        f"A message is over before the next bucket is full ({each_ms:,.4g} ≤ {part_ms:,.4g} ms): only the last is seen."
        if each_ms <= part_ms
        else f"The link never rests after the first bucket, at {part_ms:,.4g} ms: it ends at"
        f" {part_ms:,.4g} + {q} · {each_ms:,.4g} = {part_ms + q * each_ms:,.4g} ms."
    )
    return Drawn(
        question=f"A backward pass of {backward_ms} ms fills {q} equal buckets of {size_mb} MB in all, one after the"
        f" other. {n} ranks all-reduce each by a ring over {link} GB/s, beside the computing, latency left out. How"
        " many ms of communication stick out behind the backward pass?",
        answer=exposed,
        unit="ms",
        steps=(
            f"A bucket: 2 (n - 1)/n · {size_mb / q:g} MB / {link} GB/s = {each_ms:,.4g} ms; one is full every"
            f" {backward_ms}/{q} = {part_ms:,.4g} ms.",
            hides,
            f"Exposed: {exposed:,.4g} ms.",
        ),
        wrong=(
            (q * each_ms, "That is all communication. Most of it runs beside the backward pass."),
            (
                max(0, q * each_ms - backward_ms),
                "You let the link start with the backward pass. The first bucket must be full first.",
            ),
            (each_ms, "That is the last bucket alone. Others are still waiting for the link."),
            (backward_ms + exposed, "That is when the last message ends. The question asks what sticks out."),
        ),
    )


@problem("perf-recompute", chapter="14")
def perf_recompute(dice: Random) -> Drawn:
    """The activations that full recomputation leaves on a GPU at its peak."""
    shape = SHAPES[dice.choice(("8B", "70B"))]
    batch, seq = dice.choice((1, 2, 4)), dice.choice((4096, 8192))
    one = layer_activation_bytes(shape.width, shape.heads, seq, batch, "selective")
    inputs = shape.layers * layer_activation_bytes(shape.width, shape.heads, seq, batch, "full")
    held = inputs + one - inputs // shape.layers  # the input of the whole layer is among its 34 sbh
    return Drawn(
        question=f"{shape.layers} layers of width {shape.width:,} on one GPU, {batch} sequence{'s'[: batch > 1]} of"
        f" {seq:,} tokens, 16 bits, fused attention. Every layer is recomputed whole. How many GB do inputs of layers,"
        " and the one layer that is whole again in the backward pass, hold at the peak (Korthikanti's 2 sbh and"
        " 34 sbh)?",
        answer=held / 1e9,
        unit="GB",
        steps=(
            f"s·b·h = {seq:,} · {batch} · {shape.width:,} = {seq * batch * shape.width / 1e6:,.4g} million numbers.",
            f"Inputs: {shape.layers} · 2 sbh = {inputs / 1e9:.4g} GB. The rest of one whole layer: (34 - 2) sbh ="
            f" {(held - inputs) / 1e9:.4g} GB, since 34 sbh hold its input too.",
            f"Together {held / 1e9:.4g} GB; without recomputation it would be {shape.layers * one / 1e9:,.4g} GB"
            f" = {held / 1e9:.4g} GB · {shape.layers * one / held:.3g}.",
        ),
        wrong=(
            (inputs / 1e9, "You left out the layer that is whole again in the backward pass."),
            (shape.layers * one / 1e9, "That is without recomputation."),
            (one / 1e9, "That is one whole layer. The inputs of all layers are kept beside it."),
            (held / batch / 1e9, "That is one sequence."),
        ),
    )


@problem("perf-critical", chapter="14")
def perf_critical(dice: Random) -> Drawn:
    """The samples that a batch beyond the critical one costs."""
    critical, factor = dice.choice((256, 512, 1024, 2048)), dice.choice((0.5, 1, 2, 4, 8))
    batch, least = int(critical * factor), dice.choice((5_000, 10_000, 20_000))
    samples = least * (batch + critical)
    return Drawn(
        question=f"To a given loss a run needs at least {least:,} steps, however large the batch; its critical batch is"
        f" {critical:,} sequences. How many million sequences does it read with a batch of {batch:,}, by"
        " McCandlish's model?",
        answer=samples / 1e6,
        unit="",
        steps=(
            f"Steps: {least:,} (1 + B_crit/B) = {least:,} · (1 + {critical:,}/{batch:,}) = {samples / batch:,.0f}.",
            f"Sequences: {samples / batch:,.0f} · {batch:,}; the least possible is {least:,} · {critical:,} ="
            f" {least * critical / 1e6:,.4g} million.",
            f"{samples / 1e6:,.4g} million, {samples / least / critical:.3g} times the least.",
        ),
        wrong=(
            (least * batch / 1e6, "You took the fewest steps possible. A batch of this size needs more."),
            (least * critical / 1e6, "That is the least possible number of sequences."),
            (2 * least * batch / 1e6, "You took twice the fewest steps: that is so at the critical batch only."),
            (2 * least * critical / 1e6, "You took twice the least: that is so at the critical batch only."),
        ),
    )
