"""Drills of chapter 15: shares by speed, the wait of a queue, a promise of backfilling, what preemption costs, DRF."""

from collections.abc import Sequence
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
        wrong=(
            (1 / speed, "You made the slow ranks as fast as the others. They only get less to do."),
            (mean, "That is the mean speed. Compare it with the pace of equal shares."),
            (1 / mean, "You compared with a cluster without slow ranks."),
            (whole / ((whole + slow) * speed), "You left the slow ranks without work. They still help."),
            (1 / gain, "You divided the other way around."),
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
            f"The offered load is {gpus} · {busy:g} = {load:.4g} GPUs. Erlang B by recursion: blocked = {blocked:.4g}.",
            f"Erlang C, the chance of waiting at all: blocked / (1 - U (1 - blocked)) = {waits:.4g}.",
            f"Who waits does so for {hours} / ({gpus} · (1 - {busy:g})) = {hours / (gpus * (1 - busy)):.4g} h; together"
            f" {wait_h:.4g} h.",
        ),
        wrong=(
            (wait_h + hours, "You added the job's own time. The question asks for the wait."),
            (wait_h / 2 if gpus == 1 else 0, "That is for jobs that all last equally long."),
            (busy / (1 - busy) * hours, "That is for one GPU. With more of them somebody is sooner free."),
            (busy / (1 - busy) * hours / gpus, "You took one GPU that is faster. With several, one job uses one GPU."),
            (hours / (gpus * (1 - busy)), "That is the wait of those who wait. Some do not."),
            (busy * hours, "You let a job wait for the one that is running. There is a queue before it."),
        ),
    )


def _enough(head: int, free: int, jobs: Sequence[tuple[int, int]]) -> int:
    """When `head` GPUs are free, if jobs ended in the order of `jobs`; 0 if never."""
    for end_min, held in jobs:
        free += held
        if free >= head:
            return end_min
    return 0


@problem("sched-promise", chapter="15")
def sched_promise(dice: Random) -> Drawn:
    """When the head of the queue is promised its GPUs."""
    held = [dice.choice((1, 2, 4, 8)) for _ in range(4)]
    ends_min = dice.sample(range(10, 240, 5), 4)
    free = dice.randint(0, 3)
    head = free + dice.randint(1, sum(held))
    running = list(zip(ends_min, held, strict=True))
    start_min, spare = backfill.promise(head, free, running)
    late_min, told_min = _enough(head, 0, sorted(running)), _enough(head, free, running)
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
        wrong=(
            (max(ends_min), "You waited for all jobs. Fewer are enough."),
            (min(ends_min), "Then too few are free. Add up what the jobs give back."),
            (late_min, "You left out the GPUs that are free already."),
            (told_min, "You went through the jobs as they are told. They end in another order."),
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
        wrong=(
            (
                gpus * per_week * (interval_min + restart_min) / 60,
                "You lost a whole interval each time. At a random moment it is less on average.",
            ),
            (gpus * per_week * restart_min / 60, "You left out the work that is done again."),
            (gpus * per_week * interval_min / 120, "You left out the restarts."),
            (lost_h / gpus, "Those are hours of the job. Each of its GPUs loses them."),
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
            f"Of the GPUs {used[0]:.4g} · share are used, of the memory {used[1]:.4g} · share.",
            f"The fuller one ends it: share = 1 / {max(used):.4g}, {share:.4g} %.",
        ),
        wrong=(
            (50, "You gave each user a half. Together they may get more: their tasks need different things."),
            (100 / min(used), "You looked at the resource that is less used. The other one is full before."),
            (
                100 / max(sum(part[i] for part in parts) for i in (0, 1)) * most[0],
                "You gave both users as many tasks. The dominant shares are made equal.",
            ),
            (
                100 / max(sum(part[i] for part in parts) for i in (0, 1)) * most[1],
                "You gave both users as many tasks. The dominant shares are made equal.",
            ),
        ),
    )
