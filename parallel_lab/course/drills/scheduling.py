"""Drills of chapter 15: shares by speed, the wait of a queue, a promise of backfilling, what preemption costs, DRF."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.systems.balance import shares
from parallel_lab.systems.scheduling import backfill, queues


@problem("sched-shares", chapter="15")
def sched_shares(dice: Random) -> Drawn:
    """How much faster a step is with shares by speed."""
    whole, slow = dice.choice((3, 5, 6, 7, 12, 15)), dice.choice((1, 2))
    speed = dice.choice((0.4, 0.5, 0.6, 0.7, 0.8))
    speeds = [1.0] * whole + [speed] * slow
    gain, mean = shares.gain(speeds), (whole + slow * speed) / (whole + slow)
    return Drawn(
        question=f"Of {whole + slow} data-parallel ranks {slow} {'has' if slow == 1 else 'have'} {speed:g} times the"
        " speed of the others. How many times as fast is a step with shares in proportion to speed as with equal"
        " shares, if samples can be divided?",
        answer=gain,
        unit="",
        steps=(
            f"Equal shares: everybody waits for a slow rank, so the cluster works at {speed:g} per rank.",
            f"In proportion: all end together, at the mean speed ({whole} + {slow} · {speed:g}) / {whole + slow} ="
            f" {mean:.4g}.",
            f"mean / min = {mean:.4g} / {speed:g} = {gain:.4g}.",
        ),
    )


@problem("sched-wait", chapter="15")
def sched_wait(dice: Random) -> Drawn:
    """The mean wait for one of a few GPUs."""
    gpus, hours, busy = dice.choice((1, 2, 3)), dice.choice((1, 2, 4, 6)), dice.choice((0.6, 0.7, 0.8, 0.9, 0.95))
    load = gpus * busy
    blocked, waits = queues.erlang_b(gpus, load), queues.erlang_c(gpus, load)
    wait_h = queues.mean_wait_s(gpus, load / hours, hours)
    return Drawn(
        question=f"Jobs of one GPU arrive as a Poisson process and last {hours} h on average, exponentially. {gpus}"
        f" GPU{'s'[: gpus > 1]} {'serve' if gpus > 1 else 'serves'} them in the order of arrival and"
        f" {'are' if gpus > 1 else 'is'} busy {100 * busy:g} % of the time. How many hours does a job wait on average?",
        answer=wait_h,
        unit="h",
        steps=(
            f"The offered load is a = {gpus} · {busy:g} = {load:.4g} GPUs. Erlang B by recursion: {blocked:.4g}.",
            f"Erlang C, the chance of waiting at all: B / (1 - U (1 - B)) = {waits:.4g}.",
            f"Who waits does so for {hours} / ({gpus} · (1 - {busy:g})) = {hours / (gpus * (1 - busy)):.4g} h; together"
            f" {wait_h:.4g} h.",
        ),
    )


@problem("sched-promise", chapter="15")
def sched_promise(dice: Random) -> Drawn:
    """When the head of the queue is promised its GPUs."""
    held = [dice.choice((1, 2, 4, 8)) for _ in range(4)]
    ends_min = dice.sample(range(10, 240, 5), 4)
    free = dice.randint(0, 3)
    head = free + dice.randint(1, sum(held))
    running = list(zip(ends_min, held, strict=True))
    start_min, spare = backfill.promise(head, free, running)
    told = ", ".join(f"{gpus} GPU{'s'[: gpus > 1]} until {end} min" for end, gpus in running)
    sums, now = [], free
    for end, gpus in sorted(running):
        now += gpus
        sums.append(f"{now} at {end} min")
    return Drawn(
        question=f"{free} GPU{'s'[: free != 1]} {'is' if free == 1 else 'are'} free. By their limits the running jobs"
        f" hold {told}. The head of the queue needs {head} GPUs. In how many minutes is it promised its start by EASY"
        " backfilling?",
        answer=start_min,
        unit="min",
        steps=(
            f"In the order of the ends there are free: {', '.join(sums)}.",
            f"The first moment with at least {head} is the promise, with {spare} GPU{'s'[: spare != 1]} left over:"
            f" {start_min} min.",
        ),
    )


@problem("sched-preempt", chapter="15")
def sched_preempt(dice: Random) -> Drawn:
    """What reclaiming lent GPUs throws away."""
    gpus, per_week = dice.choice((32, 64, 128, 256)), dice.choice((3, 5, 10, 20))
    interval_min, restart_min = dice.choice((10, 30, 60, 120)), dice.choice((3, 5, 10))
    each_min = interval_min / 2 + restart_min
    lost_h = gpus * per_week * each_min / 60
    return Drawn(
        question=f"A job on {gpus} lent GPUs is preempted {per_week} times a week, at random moments and without"
        f" notice. It saves every {interval_min} min, and each restart takes {restart_min} min on its GPUs. How many"
        " GPU hours a week does reclaiming cost?",
        answer=lost_h,
        unit="h",
        steps=(
            f"On average half an interval is done again, {interval_min / 2:g} min; the restart is {restart_min} min.",
            f"{per_week} · {each_min:g} min = {per_week * each_min:g} min of the whole job.",
            f"Times {gpus} GPUs: {lost_h:.6g} GPU hours.",
        ),
    )


@problem("sched-drf", chapter="15")
def sched_drf(dice: Random) -> Drawn:
    """The dominant share of two users of two resources."""
    gpus, memory = dice.choice((16, 32, 64)), dice.choice((512, 1024, 2048))
    first = (dice.choice((1, 2)), dice.choice((64, 96, 128)))
    second = (dice.choice((2, 4, 8)), dice.choice((8, 16, 32)))
    parts = [(g / gpus, m / memory) for g, m in (first, second)]
    most = [max(part) for part in parts]
    used = [sum(part[i] / top for part, top in zip(parts, most, strict=True)) for i in (0, 1)]
    share = 100 / max(used)
    return Drawn(
        question=f"A cluster has {gpus} GPUs and {memory} GB of memory. Tasks of user A take {first[0]} GPU"
        f"{'s'[: first[0] > 1]} and {first[1]} GB, those of user B {second[0]} GPUs and {second[1]} GB; tasks can be"
        " divided, and both have enough of them. By dominant resource fairness, what is each user's dominant share in"
        " per cent?",
        answer=share,
        unit="%",
        steps=(
            f"Per task A takes {100 * parts[0][0]:.4g} % of the GPUs and {100 * parts[0][1]:.4g} % of the memory, B"
            f" {100 * parts[1][0]:.4g} % and {100 * parts[1][1]:.4g} %.",
            f"At a dominant share s the GPUs are used to {used[0]:.4g} s and the memory to {used[1]:.4g} s.",
            f"The fuller one ends it: s = 1 / {max(used):.4g}, {share:.4g} %.",
        ),
    )
