"""How often to save: too seldom loses much work to each failure, too often spends the time on saving.

Letters: tau is the useful time between two saves, C the time that a save stops the training, M the mean time between
failures of the whole job, R the time of a restart until the first step, all in the same unit. Failures are exponential
(a Poisson process), and strike while the job computes, saves and restarts alike.

First order (Young 1974). A share C/tau of the time goes into saving, and each failure loses half an interval on
average, tau/2 of every M. The sum C/tau + tau/(2M) is least at tau = sqrt(2 C M), where both are equal. At k times this
tau the sum is (k + 1/k)/2 of the least: half or twice costs a quarter more of the waste, so the valley is flat.

Exact (Daly 2006, its complete model). An interval is attempted until a = tau + C passes without a failure. The first
attempt fails with the probability q = 1 - exp(-a/M), and its mean length, cut at a, is M q. After a failure a restart
of length R must pass without one; by the same argument it takes M (exp(R/M) - 1) on average. Then an attempt follows.
So E = M q + q (M (exp(R/M) - 1) + E), from which E = M exp(R/M) (exp(a/M) - 1). The best tau does not depend on R.
"""

import math
from collections.abc import Callable

from parallel_lab.systems.resilience.timeline import Killed, dice


def young(save: float, mtbf: float) -> float:
    """The first-order interval, sqrt(2 C M). It holds where C is a small share of M."""
    _positive(save=save, mtbf=mtbf)
    return math.sqrt(2 * save * mtbf)


def daly(save: float, mtbf: float) -> float:
    """Daly's higher-order interval: sqrt(2CM) (1 + sqrt(C/2M)/3 + (C/2M)/9) - C where C < 2M, and M beyond."""
    _positive(save=save, mtbf=mtbf)
    ratio = save / (2 * mtbf)
    return young(save, mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save if ratio < 1 else mtbf


def best(save: float, mtbf: float) -> float:
    """The interval with the least time, by Newton's method on the derivative of the exact model.

    With y = tau/M the derivative vanishes where e^-y = (1 - y) e^(C/M), for y between 0 and 1.
    """
    _positive(save=save, mtbf=mtbf)
    grow = math.exp(-save / mtbf)  # the root of (1 - y) - e^-y e^(-C/M)
    y = min(daly(save, mtbf) / mtbf, 1.0)
    for _ in range(100):
        step = ((1 - y) - grow * math.exp(-y)) / (grow * math.exp(-y) - 1)
        y -= step
        if abs(step) < 1e-15:
            break
    return y * mtbf


def wall(work: float, tau: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The mean time for `work` in whole intervals of tau: exact for exponential failures, failing restarts included."""
    _positive(work=work, tau=tau, save=save, mtbf=mtbf)
    return work / tau * mtbf * math.exp(restart / mtbf) * math.expm1((tau + save) / mtbf)


def efficiency(tau: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The share of the time that ends in useful work: the exact model's ETTR."""
    return 1.0 / wall(1.0, tau, save, mtbf, restart)


def waste(tau: float, save: float, mtbf: float) -> float:
    """The first-order share of time that is lost: saves, and half an interval for each failure."""
    _positive(tau=tau, save=save, mtbf=mtbf)
    return save / tau + tau / (2 * mtbf)


def valley(k: float) -> float:
    """The first-order waste at k times Young's interval, over that at his: (k + 1/k)/2."""
    _positive(k=k)
    return (k + 1 / k) / 2


def ettr(tau: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The expected effective training time ratio of Kokolis et al. 2025, without time in a queue.

    It is (1 - (u0 + tau/2)/M) / (1 + w/tau), with u0 the restart and w the save; 1/M is nodes times rate.
    """
    _positive(tau=tau, save=save, mtbf=mtbf)
    return max(0.0, 1 - (restart + tau / 2) / mtbf) / (1 + save / tau)


def mtbf_of(machines: float, failures_per_1000_machine_days: float) -> float:
    """The mean time between failures of a job, in hours, if its machines fail independently of each other."""
    _positive(machines=machines, failures_per_1000_machine_days=failures_per_1000_machine_days)
    return 24 * 1000 / (machines * failures_per_1000_machine_days)


def simulate(
    work: float,
    tau: float,
    save: float,
    mtbf: float,
    restart: float = 0.0,
    *,
    shape: float = 1.0,
    seed: int = 0,
    draw: Callable[[], float] | None = None,
) -> Killed:
    """One simulated run under failures, in virtual time: what its time went into.

    Args:
        work: the useful time that the job needs.
        tau: the interval.
        save: what a save takes.
        mtbf: the mean time between failures.
        restart: what a restart takes.
        shape: that of Weibull's distribution; 1 is exponential. Below 1 a machine that has just failed is likelier
            to fail again, above 1 it wears out.
        seed: of the failures.
        draw: gives the times to failure in place of shape and seed.
    """
    _positive(work=work, tau=tau, save=save, mtbf=mtbf)
    parts, alive = Killed(), draw or dice(mtbf, shape, seed)
    saved, left = 0.0, alive()

    def passes(seconds: float) -> float:
        """How much of these seconds passes before the next failure; all of them, where it comes later."""
        nonlocal left
        passed = min(seconds, left)
        left -= passed
        return passed

    while saved < work:
        piece = min(tau, work - saved)
        did = passes(piece)
        wrote = passes(save) if did == piece else 0.0
        if left > 0:
            saved += piece
            parts.useful += piece
            parts.saving += wrote
            continue
        parts.failures += 1
        parts.lost += did
        parts.saving += wrote
        left = alive()
        while (took := passes(restart)) < restart:  # the restart can fail too
            parts.failures += 1
            parts.restarting += took
            left = alive()
        parts.restarting += took
    return parts


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r}: expected more than 0")
