"""Drills of chapter 18: F1 over ranks, perplexity, error bars, the MFU of published hours, and scaling."""

from math import exp
from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.model.budget import implied_mfu, training_flops
from parallel_lab.systems.evaluation.perplexity import Likelihood, perplexity
from parallel_lab.systems.evaluation.speed import amdahl, serial_share


@problem("eval-f1", chapter="18")
def eval_f1(dice: Random) -> Drawn:
    """The F1 of all ranks, from each rank's counts."""
    ranks = [(dice.randint(5, 90), dice.randint(1, 40), dice.randint(1, 60)) for _ in range(3)]
    tp, fp, fn = (sum(column) for column in zip(*ranks, strict=True))
    each = [2 * t / (2 * t + p + n) for t, p, n in ranks]
    told = [f"rank {r}: {t} true positives, {p} false positives, {n} missed" for r, (t, p, n) in enumerate(ranks)]
    return Drawn(
        question=f"Three ranks have evaluated their shards. {'; '.join(told)}. What is F1 over all"
        " samples, in per cent?",
        answer=100 * 2 * tp / (2 * tp + fp + fn),
        unit="%",
        steps=(
            f"Not the mean of the ranks' F1, {100 * sum(each) / 3:.3g} %. Add up: tp {tp}, fp {fp}, fn {fn}.",
            f"F1 = 2 tp / (2 tp + fp + fn) = {2 * tp} / {2 * tp + fp + fn} = {200 * tp / (2 * tp + fp + fn):.4g} %.",
        ),
        wrong=(
            (100 * sum(each) / 3, "That is the mean of the ranks' F1. Counts add up, ratios do not."),
            (100 * tp / (tp + fp), "That is the precision."),
            (100 * tp / (tp + fn), "That is the recall."),
            (100 * tp / (tp + fp + fn), "You counted true positives once. F1 is a mean of precision and recall."),
            (
                50 * tp * (1 / (tp + fp) + 1 / (tp + fn)),
                "You took the plain mean of precision and recall. F1 is the harmonic one.",
            ),
        ),
    )


@problem("eval-perplexity", chapter="18")
def eval_perplexity(dice: Random) -> Drawn:
    """The perplexity of all tokens, from ranks' mean losses."""
    tokens = [dice.choice((50, 100, 200, 400, 800)) for _ in range(3)]
    losses = [round(dice.uniform(2, 4), 1) for _ in tokens]
    nats = sum(t * x for t, x in zip(tokens, losses, strict=True))
    found = perplexity(Likelihood(nats, sum(tokens)))
    given = ", ".join(f"{t} tokens at {x} nats" for t, x in zip(tokens, losses, strict=True))
    return Drawn(
        question=f"Three ranks have mean losses over {given}. What is the perplexity of all tokens?",
        answer=found,
        steps=(
            f"Nats: {' + '.join(f'{t} · {x}' for t, x in zip(tokens, losses, strict=True))} = {nats:.1f}.",
            f"Tokens: {sum(tokens)}. Mean loss {nats / sum(tokens):.4f}.",
            f"exp of it: {found:.4g}.",
        ),
        wrong=(
            (exp(sum(losses) / 3), "You averaged over ranks. They have different numbers of tokens."),
            (sum(exp(x) for x in losses) / 3, "You averaged perplexities."),
            (
                sum(t * exp(x) for t, x in zip(tokens, losses, strict=True)) / sum(tokens),
                "You averaged perplexities over tokens. Average the losses first.",
            ),
            (nats / sum(tokens), "That is the mean loss."),
            (2 ** (nats / sum(tokens)), "You took a power of 2. The losses are in nats."),
        ),
    )


@problem("eval-error", chapter="18")
def eval_error(dice: Random) -> Drawn:
    """How many questions a difference needs."""
    share, points, agree = dice.choice((0.6, 0.7, 0.8)), dice.choice((0.5, 1.0, 2.0)), dice.choice((0.8, 0.85, 0.9))
    apart = 1 - agree
    needed = (1.96 / (points / 100)) ** 2 * (apart - (points / 100) ** 2)
    return Drawn(
        question=f"Two models answer about {share:.0%} of a kind of question right, and in {agree:.0%} of the questions"
        f" both are right or both wrong. The second is {points} points better. From how many thousand questions on does"
        " the 95 % interval of the paired difference (± 1.96 standard errors) leave out 0?",
        answer=needed / 1000,
        steps=(
            f"The difference of a question is +1 or -1 in {apart:.0%} of them and 0 elsewhere: its variance is"
            f" {apart:.2f} - {points / 100}² = {apart - (points / 100) ** 2:.5f}.",
            f"Unpaired it would be 2 · {share} · {1 - share:.1f}, and more questions.",
            f"1.96 · sqrt({apart - (points / 100) ** 2:.5f} / questions) = {points / 100}:"
            f" {needed / 1000:.4g} thousand questions.",
        ),
        wrong=(
            (
                (1.96 / (points / 100)) ** 2 * 2 * share * (1 - share) / 1000,
                "That is for unpaired models. Both answer the same questions.",
            ),
            (needed / 1.96**2 / 1000, "You took one standard error."),
            (needed / 1.96 / 1000, "You forgot to square 1.96."),
            (
                (1.96 / (points / 100)) ** 2 * share * (1 - share) / 1000,
                "That is the error of one model. Here a difference of two is asked about.",
            ),
            (
                (1.96 / (points / 100)) ** 2 * apart * agree / 1000,
                "You took the variance of whether they differ. A difference is +1 or -1.",
            ),
        ),
    )


@problem("eval-mfu", chapter="18")
def eval_mfu(dice: Random) -> Drawn:
    """The MFU that published hours imply."""
    name, peak = dice.choice((("A100", 312e12), ("H100", 989e12)))
    parameters, tokens = dice.choice((7e9, 13e9, 34e9, 70e9)), dice.choice((1e12, 2e12, 5e12, 15e12))
    flops = training_flops(parameters, tokens)
    hours = float(f"{flops / (dice.uniform(0.25, 0.5) * peak * 3600):.3g}")
    found = implied_mfu(flops, hours, peak)
    return Drawn(
        question=f"A dense model of {parameters / 1e9:g} billion parameters was trained on {tokens / 1e12:g} trillion"
        f" tokens in {hours:,.0f} {name} hours ({peak / 1e12:g} TFLOP/s dense in bfloat16). Which MFU, in per cent, do"
        " the hours imply, by 6ND?",
        answer=100 * found,
        unit="%",
        steps=(
            f"6ND = 6 · {parameters:.3g} · {tokens:.3g} = {flops:.4g} FLOPs.",
            f"The hours could have done {hours:,.0f} · 3,600 · {peak:.4g} = {hours * 3600 * peak:.4g}.",
            f"{100 * found:.4g} %, restarts and idle hours included.",
        ),
        wrong=(
            (100 * found / 3, "You counted 2ND, the forward pass."),
            (100 * found * 8 / 6, "You counted 8ND. MFU counts no recomputation."),
            (100 * found * peak / (989e12 + 312e12 - peak), "You took the peak of the other GPU."),
        ),
    )


@problem("eval-scaling", chapter="18")
def eval_scaling(dice: Random) -> Drawn:
    """What Amdahl's law makes of a measured speed-up."""
    n, m = dice.choice(((8, 64), (16, 128), (64, 256)))
    speedup = round(n * dice.uniform(0.4, 0.9), 1)
    serial = serial_share(speedup, n)
    found = amdahl(serial, m)
    return Drawn(
        question=f"One problem runs {speedup} times as fast on {n} GPUs as on one. By Amdahl's law, with the serial"
        f" share that this implies, how many times as fast on {m}?",
        answer=found,
        steps=(
            f"serial = (1/{speedup} - 1/{n}) / (1 - 1/{n}) = {serial:.4g}; never above 1/serial = {1 / serial:.3g}.",
            f"On {m}: 1 / (serial + (1 - serial)/{m}) = {found:.4g}, and less where communication grows with the"
            " ranks.",
        ),
        wrong=(
            (speedup * m / n, "You kept the efficiency. By Amdahl's law it falls."),
            (1 / serial, "That is the limit for any number of GPUs."),
            (1 / (1 - speedup / n + speedup / n / m), "You took the efficiency for the parallel share."),
            (m, "That is without any serial share."),
        ),
    )
