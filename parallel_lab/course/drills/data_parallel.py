"""Drills of chapter 03: what hides, what a step takes, how many ranks a batch feeds, what a share weighs."""

from math import ceil
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.data_parallel.overlap import step_s, tokens_that_hide


@problem("tokens-that-hide", chapter="03")
def tokens_to_hide(dice: Random) -> Drawn:
    """The tokens per GPU from which on backward hides the gradient exchange."""
    flops, gigabytes, gradient = (
        dice.choice((120, 200, 300, 400, 500)),
        dice.choice((12.5, 25, 50, 100)),
        dice.choice((2, 4)),
    )
    answer = tokens_that_hide(flops * 1e12, gigabytes * 1e9, gradient)
    ratio = flops * 1e12 / (gigabytes * 1e9)
    return Drawn(
        question=f"Each GPU reaches {flops} TFLOP/s, the ring all-reduce {gigabytes:g} GB/s, on many ranks. Gradients"
        f" have {gradient} bytes per parameter, and there is no accumulation. From how many tokens per GPU and step on"
        " is the exchange hidden?",
        answer=answer,
        unit="tokens",
        steps=(
            "Backward takes 4 N t / F seconds: two of the three products of 6 N.",
            f"The ring takes 2 (n-1)/n S/W seconds, here nearly 2 · {gradient} N / W.",
            "N is on both sides. So t is at least F/W, times half the bytes per gradient.",
            f"{gradient}/2 · {flops}e12 / {gigabytes:g}e9 = {gradient / 2:g} · {ratio:,.6g} = {answer:,.6g} tokens.",
        ),
        wrong=(
            (answer * 2 / 3, "You hid it behind the forward pass too. Gradients exist only in the backward pass."),
            (answer / 2, "You let the ring send S, or took half the bytes of a gradient. Look at both."),
            (2 * answer, "You hid it behind 2Nt FLOPs. The backward pass has two products."),
            (answer / gradient, "You counted gradients. Each of them has bytes."),
        ),
    )


@problem("overlapped-step", chapter="03")
def overlapped_step(dice: Random) -> Drawn:
    """The seconds of a step whose buckets travel during backward."""
    buckets, part, forward = dice.choice((4, 5, 8, 10)), dice.choice((10, 20, 30)), dice.choice((50, 80, 100))
    exchange = dice.choice((5, 15, 25, 40))
    answer = step_s(forward, buckets * part, buckets, exchange)
    pace = max(part, exchange)
    return Drawn(
        question=f"Forward takes {forward} ms, backward {buckets * part} ms in {buckets} equal buckets, the all-reduce"
        f" of one bucket {exchange} ms. Each bucket leaves when it is full. How long is the step?",
        answer=answer,
        unit="ms",
        steps=(
            f"Backward of one bucket takes {buckets * part}/{buckets} = {part} ms. The first is computed alone.",
            f"Then the longer of {part} (computing) and {exchange} (sending) sets the pace, {buckets - 1} times.",
            f"The last all-reduce travels alone: {exchange} ms.",
            f"{forward} + {part} + {buckets - 1} · {pace} + {exchange} = {answer:,.6g} ms.",
        ),
        wrong=(
            (
                forward + buckets * (part + exchange),
                "That is without any overlap. A bucket travels while the next is computed.",
            ),
            (
                forward + buckets * max(part, exchange),
                "You let the link start with the backward pass, and end with it.",
            ),
            (
                forward + buckets * part,
                "You hid all of it. The last bucket is full only when the backward pass is over.",
            ),
            (answer - forward, "You left out the forward pass."),
        ),
    )


@problem("ranks-at-most", chapter="03")
def ranks_at_most(dice: Random) -> Drawn:
    """The data-parallel ranks that a batch feeds, if the exchange is to hide."""
    sequence, sequences = dice.choice((2048, 4096, 8192)), dice.choice((512, 1024, 2048, 4096))
    flops, gigabytes = dice.choice((200, 400)), dice.choice((25, 50, 400))
    needed = tokens_that_hide(flops * 1e12, gigabytes * 1e9)
    own = ceil(needed / sequence)
    answer = sequences // own
    return Drawn(
        question=f"A batch of {sequences:,} sequences of {sequence:,} tokens. GPUs reach {flops} TFLOP/s, the"
        f" all-reduce {gigabytes} GB/s, gradients have 16 bits. How many data-parallel ranks at most, so that the"
        " exchange hides on every rank? A rank runs its share, whole sequences, as one microbatch.",
        answer=answer,
        unit="ranks",
        steps=(
            f"The exchange hides from F/W = {needed:,.6g} tokens per rank on.",
            f"{needed:,.6g} / {sequence:,} = {needed / sequence:.3g} sequences; a rank has whole ones, so at least"
            f" {own}.",
            f"The batch has {sequences:,} sequences: {sequences:,} / {own} = {answer:,} ranks.",
        ),
        wrong=(
            (sequences * sequence / needed, "You cut sequences. A rank has whole ones."),
            (
                sequences // max(1, own - 1),
                "You rounded the sequences of a rank down. Then the exchange does not hide.",
            ),
            (sequences, "With one sequence a rank: it has too few tokens to hide the exchange."),
        ),
    )


@problem("uneven-weight", chapter="03")
def uneven_weight(dice: Random) -> Drawn:
    """The weight that makes uneven shares right."""
    n = dice.choice((3, 4, 6, 8))
    counts = [dice.randint(20, 60) * 100 for _ in range(n)]
    total, mine = sum(counts), counts[0]
    answer = n * mine / total
    return Drawn(
        question=f"{n} ranks have {', '.join(f'{count:,}' for count in counts)} tokens with a loss. Each computes the"
        " mean over its own tokens, and DDP averages over the ranks. By what must the first rank multiply its loss?",
        answer=answer,
        steps=(
            f"DDP gives 1/n of the sum over ranks; wanted is the sum over all {total:,} tokens, divided by {total:,}.",
            "A mean over b_r tokens times n b_r / B counts each token 1/B after the averaging.",
            f"{n} · {mine:,} / {total:,} = {answer:.4f}.",
        ),
        wrong=(
            (mine / total, "That is the rank's share of the tokens. DDP divides by the number of ranks as well."),
            (total / (n * mine), "You divided the other way around: a rank with more tokens must count more."),
            (n * mine / (total - mine), "You compared with the other ranks' tokens, not with all."),
        ),
    )
