"""What waiting, staleness and seldom exchange cost, in closed form.

Letters of the course: n ranks, H steps between exchanges, tau staleness, T seconds of a step.

    the i-th of n exponential times      1/n + 1/(n-1) + ... + 1/(n-i+1)      of mean 1 (order statistics)
    throughput of ASP over BSP           factor · (n - 1) / n + 1 / n   one worker takes `factor` times as long
    largest stable rate on a parabola    2 sin(pi / (2 (2 tau + 1)))   in units of 1 / curvature; 2 without staleness
    share of time that computes          H T / (H T + what of the exchange is not hidden)

The rate is the condition of Levin & May 1976 ("A note on difference-delay equations"), for a fixed staleness.
"""

from math import pi, sin


def expected_place(ranks: int, place: int | None = None) -> float:
    """The mean time of the `place`-th of `ranks` exponential times of mean 1; by default of the last one."""
    place = ranks if place is None else place
    return sum(1 / still for still in range(ranks - place + 1, ranks + 1))


def asynchronous_gain(ranks: int, factor: float) -> float:
    """How many times as many gradients per second without waiting, where one rank takes `factor` times as long."""
    return factor * (ranks - 1) / ranks + 1 / ranks


def largest_rate(staleness: int) -> float:
    """The largest stable learning rate on a parabola of curvature 1 where every gradient is so stale."""
    return 2 * sin(pi / (2 * (2 * staleness + 1)))


def computing(step_s: float, exchange_s: float, every: int = 1, hidden_s: float = 0.0) -> float:
    """The share of time in which ranks compute: an exchange every `every` steps, of which `hidden_s` are hidden."""
    return every * step_s / (every * step_s + max(0.0, exchange_s - hidden_s))
