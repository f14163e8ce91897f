"""What a queue's length follows from: closed forms that a simulator must meet.

Jobs of one GPU arrive as a Poisson process, `rate` a second, and work for an exponential time of mean `mean_s`; k GPUs
serve them in the order of arrival: M/M/k. load = rate mean_s is the offered load in GPUs, U = load / k the utilization,
below 1 or the line grows without end. The chance that an arrival waits, Pr[wait], is Erlang's C (1917), and who waits
does so for mean_s / (k (1 - U)) on average, so

    T_wait = Pr[wait] mean_s / (k (1 - U))         at k = 1: Pr[wait] = U, T_wait = mean_s U / (1 - U)

Little's law (1961) asks for no distribution and no order: the mean number of jobs in the system is the rate of arrival
times the mean time that a job is in it. It holds for the line alone as well.

On one GPU with any distribution of service, the order of arrival waits for rate times the mean square of service over
2 (1 - U) (Pollaczek and Khinchine): a few huge jobs are enough for a long line.
"""

import random

from parallel_lab.systems.scheduling.cluster import Job


def erlang_b(servers: int, load: float) -> float:
    """The chance that all are busy, where nobody waits: blocked(k) = load blocked(k-1) / (k + load blocked(k-1))."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """The chance that an arrival has to wait in M/M/k."""
    if not 0 < load < servers:
        raise ValueError(f"a load of {load} on {servers} GPUs: the line has a mean length only where 0 < load < GPUs")
    blocked, busy = erlang_b(servers, load), load / servers
    return blocked / (1 - busy * (1 - blocked))


def mean_wait_s(servers: int, rate: float, mean_s: float) -> float:
    """The mean time in the line of M/M/k."""
    load = rate * mean_s
    return erlang_c(servers, load) * mean_s / (servers - load)


def mean_jct_s(servers: int, rate: float, mean_s: float) -> float:
    """The mean time from arrival to end of M/M/k."""
    return mean_wait_s(servers, rate, mean_s) + mean_s


def mean_line(servers: int, rate: float, mean_s: float) -> float:
    """The mean number of jobs that wait in M/M/k, by Little's law."""
    return rate * mean_wait_s(servers, rate, mean_s)


def pollaczek_khinchine_s(rate: float, mean_s: float, second_moment_s2: float) -> float:
    """The mean wait on one GPU in the order of arrival, for any distribution of service."""
    if not 0 < rate * mean_s < 1:
        raise ValueError(f"a load of {rate * mean_s} on one GPU: the line has a mean length only below 1")
    return rate * second_moment_s2 / (2 * (1 - rate * mean_s))


def poisson_jobs(count: int, *, rate: float, mean_s: float, seed: int) -> list[Job]:
    """So many jobs of one GPU: Poisson arrivals, exponential durations."""
    dice, now_s, jobs = random.Random(seed), 0.0, []
    for number in range(count):
        now_s += dice.expovariate(rate)
        jobs.append(Job(str(number), now_s, 1, dice.expovariate(1 / mean_s)))
    return jobs
