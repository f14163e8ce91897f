"""How often to save: too seldom loses much work to each failure, too often spends the time on saving.

Letters: T_work is the useful time between two saves, T_save the time that a save stops the training, M the mean time
between failures of the whole job, T_restart the time of a restart until the first step, all in the same unit. Failures
are exponential (a Poisson process), and strike while the job computes, saves and restarts alike.

First order (Young 1974). A share T_save/T_work of the time goes into saving, and each failure loses half an interval on
average, T_work/2 of every M. The sum T_save/T_work + T_work/(2M) is least at T_work = sqrt(2 T_save M), where both are
equal. At a factor times this T_work the sum is (factor + 1/factor)/2 of the least: half or twice costs a quarter more
of the waste, so the valley is flat.

Exact (Daly 2006, its complete model). An interval is attempted until T_work + T_save pass without a failure. The first
attempt fails with the probability fail = 1 - exp(-(T_work + T_save)/M), and its mean length, cut there, is M · fail.
After a failure a restart of length T_restart must pass without one; by the same argument it takes
M (exp(T_restart/M) - 1) on average. Then an attempt follows. So the mean time of an interval is

    mean = M · fail + fail (M (exp(T_restart/M) - 1) + mean), from which
    mean = M exp(T_restart/M) (exp((T_work + T_save)/M) - 1)

The best T_work does not depend on T_restart.
"""

import math
from collections.abc import Callable

from parallel_lab.systems.resilience.timeline import Killed, dice


def young(save: float, mtbf: float) -> float:
    """The first-order interval, sqrt(2 T_save M). It holds where T_save is a small share of M."""
    _positive(save=save, mtbf=mtbf)
    return math.sqrt(2 * save * mtbf)


def daly(save: float, mtbf: float) -> float:
    """Daly's higher-order interval, sqrt(2 T_save M) (1 + sqrt(ratio)/3 + ratio/9) - T_save.

    The ratio is T_save/(2M); where it is 1 or more, the interval is M.
    """
    _positive(save=save, mtbf=mtbf)
    ratio = save / (2 * mtbf)
    return young(save, mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save if ratio < 1 else mtbf


def best(save: float, mtbf: float) -> float:
    """The interval with the least time, by Newton's method on the derivative of the exact model.

    With share = T_work/M the derivative vanishes where exp(-share) = (1 - share) exp(T_save/M), for a share between
    0 and 1.
    """
    _positive(save=save, mtbf=mtbf)
    grow = math.exp(-save / mtbf)  # the root of (1 - share) - exp(-share) exp(-T_save/M)
    share = min(daly(save, mtbf) / mtbf, 1.0)
    for _ in range(100):
        step = ((1 - share) - grow * math.exp(-share)) / (grow * math.exp(-share) - 1)
        share -= step
        if abs(step) < 1e-15:
            break
    return share * mtbf


def wall(work: float, every: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The mean time for `work` in whole intervals: exact for exponential failures, failing restarts included."""
    _positive(work=work, every=every, save=save, mtbf=mtbf)
    return work / every * mtbf * math.exp(restart / mtbf) * math.expm1((every + save) / mtbf)


def efficiency(every: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The share of the time that ends in useful work: the exact model's ETTR."""
    return 1.0 / wall(1.0, every, save, mtbf, restart)


def waste(every: float, save: float, mtbf: float) -> float:
    """The first-order share of time that is lost: saves, and half an interval for each failure."""
    _positive(every=every, save=save, mtbf=mtbf)
    return save / every + every / (2 * mtbf)


def valley(factor: float) -> float:
    """The first-order waste at `factor` times Young's interval, over that at his: (factor + 1/factor)/2."""
    _positive(factor=factor)
    return (factor + 1 / factor) / 2


def ettr(every: float, save: float, mtbf: float, restart: float = 0.0) -> float:
    """The expected effective training time ratio of Kokolis et al. 2025, without time in a queue.

    It is (1 - (T_restart + T_work/2)/M) / (1 + T_save/T_work); 1/M is nodes times rate.
    """
    _positive(every=every, save=save, mtbf=mtbf)
    return max(0.0, 1 - (restart + every / 2) / mtbf) / (1 + save / every)


def mtbf_of(machines: float, failures_per_1000_machine_days: float) -> float:
    """The mean time between failures of a job, in hours, if its machines fail independently of each other."""
    _positive(machines=machines, failures_per_1000_machine_days=failures_per_1000_machine_days)
    return 24 * 1000 / (machines * failures_per_1000_machine_days)


def simulate(
    work: float,
    every: float,
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
        every: the interval, T_work.
        save: what a save takes.
        mtbf: the mean time between failures.
        restart: what a restart takes.
        shape: that of Weibull's distribution; 1 is exponential. Below 1 a machine that has just failed is likelier
            to fail again, above 1 it wears out.
        seed: of the failures.
        draw: gives the times to failure in place of shape and seed.
    """
    _positive(work=work, every=every, save=save, mtbf=mtbf)
    parts, alive = Killed(), draw or dice(mtbf, shape, seed)
    saved, left = 0.0, alive()

    def passes(seconds: float) -> float:
        """How much of these seconds passes before the next failure; all of them, where it comes later."""
        nonlocal left
        passed = min(seconds, left)
        left -= passed
        return passed

    while saved < work:
        piece = min(every, work - saved)
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
