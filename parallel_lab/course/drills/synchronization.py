"""Drills of chapter 04: what waiting costs, how stale a gradient may be, and an exchange between data centers."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.model import budget
from parallel_lab.network import Link, ring_cost
from parallel_lab.synchronization import Stale, formulas


@problem("asynchronous-gain", chapter="04")
def asynchronous_gain(dice: Random) -> Drawn:
    """How many times as many gradients per second without waiting."""
    n, factor = dice.choice((4, 8, 16, 32)), dice.choice((1.5, 2.0, 3.0, 4.0, 5.0))
    gain = formulas.asynchronous_gain(n, factor)
    return Drawn(
        question=f"{n} workers; {n - 1} take 1 s per gradient, one takes {factor:g} s. How many times as many "
        "gradients per second does asynchronous training (ASP) compute as synchronous training (BSP)?",
        answer=gain,
        steps=(
            f"BSP waits for the slowest: n / max(T_i) = {n} / {factor:g} = {n / factor:.4g} gradients per second.",
            f"ASP waits for nobody: the sum of 1/T_i is {n - 1} + 1/{factor:g} = {n - 1 + 1 / factor:.4g}.",
            f"The ratio is factor · (n - 1)/n + 1/n = {factor:g} · {n - 1}/{n} + 1/{n} = {gain:.4g}.",
        ),
        wrong=(
            (factor, "You made all workers as fast as the fast ones. The slow one still takes its time."),
            (gain / factor, "You compared with n fast workers. BSP waits for the slowest."),
            (1 / gain, "You divided the other way around."),
            ((n - 1 + factor) / n, "That is the mean time of a gradient. Rates add up, not times."),
        ),
    )


@problem("slowest-of-many", chapter="04")
def slowest_of_many(dice: Random) -> Drawn:
    """How often a step is slow because one of many ranks is."""
    n, per = dice.choice((64, 256, 512, 1024, 2048)), dice.choice((1_000, 2_000, 5_000, 10_000))
    share = 100 * budget.some_of(n, 1 / per)
    return Drawn(
        question=f"Each of {n:,} GPUs is slow in one step of {per:,}, each by itself. Of how many steps in a hundred "
        "is at least one GPU slow, so that all wait?",
        answer=share,
        unit="%",
        steps=(
            f"One GPU is in time with chance 1 - 1/{per:,}; all are with chance (1 - 1/{per:,})^{n}.",
            f"That is about exp(-{n}/{per}) = {1 - share / 100:.4g}.",
            f"So with ψ = 1/{per:,}: 1 - (1 - ψ)^n = {share:.4g} %.",
        ),
        tolerance=0.03,
        wrong=(
            (100 * n / per, "You added up the chances. Then steps with two slow GPUs count twice."),
            (100 - share, "That is how often nobody is slow."),
            (100 / per, "That is one GPU."),
        ),
    )


@problem("staleness-bound", chapter="04")
def staleness_bound(dice: Random) -> Drawn:
    """The most updates that a gradient can miss under SSP."""
    n, c = dice.randint(3, 16), dice.randint(0, 6)
    most = Stale(c).staleness_bound(n)
    return Drawn(
        question=f"SSP with {n} workers; a worker may be at most c = {c} steps ahead of the slowest when it pulls, and "
        "each gradient is an update. How many updates can a gradient miss at most?",
        answer=most,
        unit="updates",
        steps=(
            f"When I pull for my step i, each other worker is at step i - {c} at least.",
            f"Until I push, none gets past step i + {c} + 1: {2 * c + 1} updates of each at most.",
            f"(n - 1)(2c + 1) = {n - 1} · {2 * c + 1} = {most} updates.",
        ),
        wrong=(
            ((n - 1) * c, "You counted only how far others are ahead when you pull. They go on until you push."),
            (n * (2 * c + 1), "You counted your own updates as well. Your gradient misses those of others."),
            ((n - 1) * (c + 1), "You let the others start at your step. They may be behind you, too."),
            ((n - 1) * 2 * c, "You left out the step at which both stand."),
            (2 * c + 1, "That is one other worker."),
        ),
    )


@problem("centers-exchange", chapter="04")
def centers_exchange(dice: Random) -> Drawn:
    """The seconds that an exchange between data centers adds to a step."""
    n, billions, gbit = dice.choice((2, 4, 8)), dice.choice((8, 13, 34, 70)), dice.choice((10, 25, 100))
    every = dice.choice((50, 100, 500))
    size_gb = 2 * billions
    exchange_s = ring_cost("all_reduce", n, size_gb * 1e9).seconds(Link(bytes_per_s=gbit * 1e9 / 8))
    return Drawn(
        question=f"{n} data centers train {billions} B parameters by local SGD: every {every} steps they average "
        f"weights in bfloat16, by a ring over links of {gbit} Gbit/s. Nothing is hidden. How many seconds does that "
        "add per step?",
        answer=exchange_s / every,
        unit="s",
        steps=(
            f"S = 2 bytes · {billions} B = {size_gb} GB; W = {gbit}/8 = {gbit / 8:g} GB/s.",
            f"An exchange takes 2 (n - 1)/n S/W = 2 · {n - 1}/{n} · {size_gb} / {gbit / 8:g} = {exchange_s:.4g} s.",
            f"Every H = {every} steps: {exchange_s:.4g} / {every} = {exchange_s / every:.4g} s per step.",
        ),
        wrong=(
            (exchange_s, "That is one exchange. It is spread over the steps between two of them."),
            (exchange_s / every / 8, "You took Gbit/s for GB/s."),
            (2 * exchange_s / every, "You counted 4 bytes per weight. Weights travel in bfloat16."),
            (exchange_s / every / 2, "That is one half of the ring."),
        ),
    )
