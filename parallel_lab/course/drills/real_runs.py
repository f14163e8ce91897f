"""Drills of chapter 22: a step on more nodes, GPUs that a trend asks for, tokens behind a utilization."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem

DAY_S = 86_400


@problem("runs-scale", chapter="22")
def runs_scale(dice: Random) -> Drawn:
    """The same batch on more data ranks."""
    pp, v = dice.choice((8, 12, 16)), dice.choice((1, 2, 4))
    few, more = dice.choice(((8, 16), (12, 24), (16, 32)))
    m = dice.choice((4, 6, 8)) * pp
    step = dice.choice((20, 30, 40, 60))
    busy = step / (1 + (pp - 1) / (v * m))
    less = busy * few / more
    again = less * (1 + (pp - 1) / (v * m * few / more))
    return Drawn(
        question=f"A run with pp = {pp}, {v} chunk{'s' * (v > 1)} and dp = {few} has {m} microbatches per pipeline, and"
        f" a step takes {step} s. It moves to dp = {more} with the same batch and the same microbatch. Communication"
        " between data ranks is hidden, and all else grows with the tokens of a GPU. How many seconds is a step?",
        answer=again,
        unit="s",
        steps=(
            f"The bubble was {pp - 1}/({v} · {m}) of the busy time, so a GPU was busy for {busy:.4g} s.",
            f"With dp = {more} it is busy for {less:.4g} s, with {m * few // more} microbatches.",
            f"{less:.4g} · (1 + {pp - 1}/({v} · {m * few // more})) = {again:.4g} s.",
        ),
        wrong=(
            (step * few / more, "You shrank the bubble, too. It lasts as long as before."),
            (less, "You left out the bubble."),
            (step / (1 + (pp - 1) / m) * (few / more + (pp - 1) / m), "You took one chunk per rank."),
            (step, "A rank has fewer microbatches."),
        ),
    )


@problem("runs-growth", chapter="22")
def runs_growth(dice: Random) -> Drawn:
    """How many times the chips."""
    compute, chip = dice.choice((4.0, 4.5, 5.0)), dice.choice((1.3, 1.4, 1.5))
    longer, years = dice.choice((1.0, 1.1, 1.2)), dice.choice((2, 3, 4))
    found = (compute / chip / longer) ** years
    return Drawn(
        question=f"The FLOPs of the largest runs grow {compute:g} times per year, what a chip reaches {chip:g} times,"
        f" and a run lasts {longer:g} times as long as one a year before. How many times the chips does the largest run"
        f" have after {years} years?",
        answer=found,
        steps=(
            f"Chips = FLOPs / (FLOP/s of a chip · seconds): per year {compute:g} / ({chip:g} · {longer:g})"
            f" = {compute / chip / longer:.4g} times.",
            f"To the power of {years}: {found:.4g} times.",
        ),
        wrong=(
            ((compute / chip) ** years, "You left out that runs last longer."),
            (compute**years, "You counted FLOPs. Chips get faster, and runs longer."),
            ((compute / longer) ** years, "You left out that chips get faster."),
            (years * compute / chip / longer, "You multiplied by the years. Growth is a power."),
            (compute / chip / longer, "That is one year."),
        ),
    )


@problem("runs-tokens", chapter="22")
def runs_tokens(dice: Random) -> Drawn:
    """Days from a utilization and the active parameters."""
    total, active = dice.choice(((300, 47), (671, 37), (235, 22)))
    gpus, mfu, tokens = dice.choice((1024, 2016, 4096)), dice.choice((35, 40, 47)), dice.choice((5, 10, 15))
    rate = gpus * mfu / 100 * 989e12 / (6 * active * 1e9)
    days = tokens * 1e12 / rate / DAY_S
    return Drawn(
        question=f"A mixture of experts has {total} billion parameters, of which a token uses {active} billion. On"
        f" {gpus:,} H800 (989 TFLOP/s in bfloat16) it trains at an MFU of {mfu} % of that peak. How many days do"
        f" {tokens} trillion tokens take, without interruptions?",
        answer=days,
        unit="days",
        steps=(
            f"FLOPs per token: 6 · {active}e9, with the parameters that a token uses.",
            f"Tokens per second: {gpus:,} · {mfu / 100:g} · 989e12 / {6 * active}e9 = {rate:.4g}.",
            f"{tokens}e12 / {rate:.4g} / 86,400 = {days:.4g} days.",
        ),
        wrong=(
            (days * total / active, "You took all parameters. A token uses some of them."),
            (days / 3, "You counted the forward pass only."),
            (days * mfu / 100, "You divided by the peak."),
            (days * 24, "That is hours."),
        ),
    )
