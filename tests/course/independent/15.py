import numpy as np
from independent.reading import read
from scipy.optimize import linprog


def sched_shares(text):
    q = read(text, "Of {n} data-parallel ranks {slow} ha", "{speed} times the speed")
    speeds = [1.0] * (q.n - q.slow) + [q.speed] * q.slow
    equal_s = max(1 / q.n / speed for speed in speeds)
    divided_s = max(speed / sum(speeds) / speed for speed in speeds)
    return equal_s / divided_s


def sched_wait(text):
    q = read(text, "last {hours} h on average", "exponentially. {gpus} GPU", "busy {busy} % of the time")
    arrivals, chances = q.gpus * q.busy / 100 / q.hours, [1.0]  # per hour; of k jobs being there, not yet normed
    for jobs in range(1, 4000):  # as many jobs arrive as leave
        chances.append(chances[-1] * arrivals / (min(jobs, q.gpus) / q.hours))
    waiting = sum(max(0, jobs - q.gpus) * chance for jobs, chance in enumerate(chances)) / sum(chances)
    return waiting / arrivals  # Little


def sched_promise(text):
    q = read(text, "{free} GPU", "The head of the queue needs {head} GPUs")
    jobs = text.split("hold ")[1].split(". The head")[0].split(", ")
    running = [read(job, "{gpus} GPU", "until {end} min") for job in jobs]
    for minute in range(1000):
        if q.free + sum(job.gpus for job in running if job.end <= minute) >= q.head:
            return minute
    raise AssertionError("never")


def sched_preempt(text):
    q = read(text, "on {gpus} lent GPUs is preempted {times} times", "every {interval} min", "takes {restart} min")
    moments = (np.arange(1000) + 0.5) * q.interval / 1000  # minutes since the last save
    return q.gpus * q.times * np.mean(moments + q.restart) / 60


def sched_drf(text):
    q = read(text, "has {gpus} GPUs and {gb} GB", "user A take {a} GPU", "user B {b} GPUs")
    a = (q.a / q.gpus, read(text.split("user A")[1], "and {gb} GB").gb / q.gb)
    b = (q.b / q.gpus, read(text.split("user B")[1], "and {gb} GB").gb / q.gb)
    # Tasks x, y and the share s that both have: the largest s that both resources hold.
    found = linprog(
        [0, 0, -1],
        A_ub=[[a[0], b[0], 0], [a[1], b[1], 0]],
        b_ub=[1, 1],
        A_eq=[[max(a), 0, -1], [0, max(b), -1]],
        b_eq=[0, 0],
    )
    return 100 * found.x[2]
