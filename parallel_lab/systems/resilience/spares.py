"""Hot spares: machines that wait warm for a place, and how many of them it takes.

A cold newcomer starts Python, loads torch and builds its model before it can take a place; all others wait for it. A
spare has done that before. What it costs is the machines that do nothing, so: how many?

Of n machines that train, each fails λ times a day, and each repair takes T_repair days. Failures do not wait for each
other, so the number in repair is Poisson with the mean n λ T_repair, whatever the distribution of the repairs
(M/G/infinity, Palm). A place stays empty for the share of time in which more machines are in repair than there are
spares. This holds for spares that fail as seldom as they would if they trained, and repairs that need no queue. For a
machine that can only be up or down the same count is binomial, over n + spares machines, each down with the chance
ψ = λ T_repair/(1 + λ T_repair); with small ψ both agree.

What is done in practice: OPT-175B trained on 992 GPUs, 124 hosts of 8, with 12 buffer nodes, and lost about two
machines a day (Zhang et al. 2022 and its published logbook). How long repairs took is not in it. If it was two days,
the mean is 4, and 12 spares leave a place empty for 0.03 % of the time; if four days, it is 8, and for 6 %.
"""

import heapq
import math
import random
import subprocess
import sys
from itertools import count


def in_repair(machines: float, failures_per_day: float, repair_days: float) -> float:
    """The mean number of machines in repair, n λ T_repair (Little's law)."""
    return machines * failures_per_day * repair_days


def short_poisson(spares: int, mean: float) -> float:
    """The share of time in which more than `spares` machines are in repair: a place is empty."""
    terms = (math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in count(spares + 1)) if mean > 0 else ()
    total = 0.0
    for i, term in enumerate(terms, spares + 1):
        total += term
        if i > mean and term < 1e-17 * total:
            break
    return total


def short_binomial(spares: int, machines: int, down: float) -> float:
    """The chance that more than `spares` of `machines + spares` are down at a moment, each with the chance `down`."""
    everyone = machines + spares
    return math.fsum(
        math.comb(everyone, i) * down**i * (1 - down) ** (everyone - i) for i in range(spares + 1, everyone + 1)
    )


def needed(mean: float, empty: float) -> int:
    """The fewest spares with which a place is empty for at most the share `empty` of the time."""
    if not 0 < empty < 1:
        raise ValueError(f"empty={empty!r}: expected a share between 0 and 1")
    return next(spares for spares in count() if short_poisson(spares, mean) <= empty)


def simulate(
    machines: int,
    failures_per_day: float,
    repair_days: float,
    spares: int,
    *,
    days: float = 10_000.0,
    fixed: bool = False,
    seed: int = 0,
) -> float:
    """The simulated share of time with an empty place.

    Only machines with a place fail, so where places are empty fewer fail than the formula has it.

    Args:
        machines: places to fill.
        failures_per_day: of a machine with a place.
        repair_days: on average.
        spares: machines beyond the places.
        days: how long.
        fixed: whether each repair takes exactly the mean; otherwise times are exponential.
        seed: of the failures.
    """
    dice, now, empty, repairs = random.Random(seed), 0.0, 0.0, list[float]()
    while now < days:
        training = min(machines, machines + spares - len(repairs))
        failure = now + dice.expovariate(training * failures_per_day)
        following = min(failure, repairs[0] if repairs else math.inf, days)
        empty += (following - now) * (len(repairs) > spares)
        now = following
        if repairs and repairs[0] == now:
            heapq.heappop(repairs)
        elif now == failure:
            heapq.heappush(repairs, now + (repair_days if fixed else dice.expovariate(1 / repair_days)))
    return empty / days


def cold_start() -> None:
    """What a cold newcomer does before it can take a place: it starts Python and loads torch, really."""
    subprocess.run([sys.executable, "-c", "import torch, torch.distributed, torch.optim"], check=True)


def idle_share(machines: int, spares: int) -> float:
    """The share of all machines that wait."""
    return spares / (machines + spares)


def gain(cold_s: float, hot_s: float, failures_per_day: float) -> float:
    """The share of time that spares save: each failure costs the cold start less."""
    return (cold_s - hot_s) * failures_per_day / 86400


def worth_it(machines: int, spares: int, cold_s: float, hot_s: float, failures_per_day: float) -> bool:
    """Whether spares save more of the machines' time than they cost; quick recovery may be wanted all the same."""
    return gain(cold_s, hot_s, failures_per_day) > idle_share(machines, spares)
