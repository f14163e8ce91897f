"""Drills of chapter 16: failures of a job, when to save, bytes and seconds of a checkpoint, goodput, and spares."""

from random import Random

from parallel_lab.course.drills.engine import Drawn, problem
from parallel_lab.systems.resilience import interval, spares

GPUS_PER_NODE = 8


@problem("fault-mtbf", chapter="16")
def fault_mtbf(dice: Random) -> Drawn:
    """The time between failures of a job, from the failures that a cluster counted."""
    gpus, days = dice.choice((2048, 4096, 8192, 16_384)), dice.choice((30, 45, 54, 90))
    counted = round(dice.uniform(2, 8) / 1000 * days * gpus / GPUS_PER_NODE)
    mine = dice.choice((256, 512, 1024))
    node_days = days * gpus // GPUS_PER_NODE
    hours = interval.mtbf_of(mine / GPUS_PER_NODE, 1000 * counted / node_days)
    return Drawn(
        question=f"A job on {gpus:,} GPUs, {GPUS_PER_NODE} per node, was interrupted {counted:,} times in {days} days."
        f" By the 1/n law, how many hours pass between two interruptions of your job on {mine:,} GPUs of that cluster?",
        answer=hours,
        unit="h",
        steps=(
            f"Node-days: {days} · {gpus:,}/{GPUS_PER_NODE} = {node_days:,}; {counted:,} interruptions are"
            f" {1000 * counted / node_days:.4g} per 1,000 node-days.",
            f"Your {mine // GPUS_PER_NODE} nodes have {mine // GPUS_PER_NODE} · {counted / node_days:.4g} ="
            f" {counted / node_days * mine / GPUS_PER_NODE:.4g} interruptions per day.",
            f"24 h / {counted / node_days * mine / GPUS_PER_NODE:.4g} = {hours:.4g} h.",
        ),
        wrong=(
            (24 * days / counted, "That is the job that was measured. Yours has fewer GPUs."),
            (24 * days / counted * mine / gpus, "You turned the 1/n law around: fewer GPUs fail less often."),
            (24 / hours, "Those are interruptions per day."),
            (hours * GPUS_PER_NODE, "You mixed GPUs and nodes."),
            (hours / GPUS_PER_NODE, "You mixed GPUs and nodes."),
        ),
    )


@problem("fault-interval", chapter="16")
def fault_interval(dice: Random) -> Drawn:
    """What a checkpoint interval costs that is not the best one."""
    hours, save_s = dice.choice((3, 4, 8, 12)), dice.choice((5, 10, 20, 60))
    factor = dice.choice((0.25, 0.5, 2, 3, 4))
    mtbf_s = 3600 * hours
    best_s = interval.young(save_s, mtbf_s)
    lost = 100 * interval.waste(factor * best_s, save_s, mtbf_s)
    return Drawn(
        question=f"A job fails every {hours} h, and a checkpoint stops it for {save_s} s. It saves {factor:g} times as"
        " far apart as Young's formula says. How many per cent of useful time go into saving and into work done again,"
        " to first order, without the restarts?",
        answer=lost,
        unit="%",
        steps=(
            f"Young: sqrt(2 · {save_s} s · {mtbf_s:,} s) = {best_s:,.4g} s; here T_work = {factor * best_s:,.4g} s.",
            f"Saving: {save_s} / {factor * best_s:,.4g} = {100 * save_s / (factor * best_s):.4g} %. Done again: half an"
            f" interval each M, {factor * best_s:,.4g} / 2 / {mtbf_s:,} = {50 * factor * best_s / mtbf_s:.4g} %.",
            f"Together {lost:.4g} %, that is ({factor:g} + 1/{factor:g})/2 = {(factor + 1 / factor) / 2:.4g} times the"
            f" least, {200 * save_s / best_s:.4g} %.",
        ),
        wrong=(
            (200 * save_s / best_s, "That is the cost of the best interval."),
            (
                factor * 200 * save_s / best_s,
                "The cost does not grow in proportion: saving falls while work done again grows.",
            ),
            (100 * save_s / (factor * best_s), "That is saving alone."),
            (
                100 * (save_s / (factor * best_s) + factor * best_s / mtbf_s),
                "You lost a whole interval with each failure. On average it is less.",
            ),
            (50 * factor * best_s / mtbf_s, "That is work done again alone."),
        ),
    )


@problem("fault-checkpoint", chapter="16")
def fault_checkpoint(dice: Random) -> Drawn:
    """The seconds that a sharded checkpoint takes to reach the storage."""
    billions, per_parameter = dice.choice((8, 70, 405, 671)), dice.choice((12, 14, 16))
    gpus, storage_gb_s, rank_gb_s = (
        dice.choice((256, 1024, 4096)),
        dice.choice((50, 100, 400, 2000)),
        dice.choice((0.5, 1, 2)),
    )
    size_gb = billions * per_parameter
    alone_s, shared_s = size_gb / gpus / rank_gb_s, size_gb / storage_gb_s
    seconds = max(alone_s, shared_s)
    binds = "the storage binds" if shared_s >= alone_s else "a rank's own path binds"
    return Drawn(
        question=f"{billions} billion parameters, {per_parameter} bytes each in a checkpoint, cut evenly over {gpus:,}"
        f" GPUs that write at one time. Each can send {rank_gb_s:g} GB/s, and the storage takes {storage_gb_s:,} GB/s"
        " in all. How many seconds does the writing take?",
        answer=seconds,
        unit="s",
        steps=(
            f"The checkpoint: {billions} · {per_parameter} = {size_gb:,} GB, {size_gb / gpus:.4g} GB per GPU.",
            f"By a rank's own path {size_gb / gpus:.4g} / {rank_gb_s:g} = {alone_s:.4g} s; by the storage {size_gb:,} /"
            f" {storage_gb_s:,} = {shared_s:.4g} s.",
            f"The slower one counts, {binds}: {seconds:.4g} s.",
        ),
        wrong=(
            (min(alone_s, shared_s), "You took the faster of two limits. The slower one counts."),
            (alone_s + shared_s, "You added up. Sending and storing happen at one time."),
            (size_gb / rank_gb_s, "You let one GPU write all. It is cut over the GPUs."),
            (2 / per_parameter * seconds, "You saved the 16-bit weights alone."),
        ),
    )


@problem("fault-goodput", chapter="16")
def fault_goodput(dice: Random) -> Drawn:
    """The share of the time that a job makes progress."""
    hours, restart_min = dice.choice((2, 3, 4, 8)), dice.choice((3, 5, 10, 15, 20))
    save_s, interval_min = dice.choice((5, 10, 30, 60)), dice.choice((10, 15, 20, 30))
    mtbf_s, interval_s = 3600 * hours, 60 * interval_min
    lost_s = 60 * restart_min + interval_s / 2
    kept = interval.ettr(interval_s, save_s, mtbf_s, 60 * restart_min)
    return Drawn(
        question=f"A job is interrupted every {hours} h. To be noticed, restarted and loaded takes {restart_min} min."
        f" It saves every {interval_min} min of training, and each save stops it for {save_s} s. How many per cent of"
        " the time is goodput, to first order?",
        answer=100 * kept,
        unit="%",
        steps=(
            f"Each {hours} h loses the restart and half an interval: {60 * restart_min} + {interval_s // 2} ="
            f" {lost_s:,.0f} s of {mtbf_s:,} s, so 1 - {lost_s / mtbf_s:.4g} = {1 - lost_s / mtbf_s:.4g} is left.",
            f"Of this, {interval_s} s of {interval_s} + {save_s} s train: {1 / (1 + save_s / interval_s):.4g}.",
            f"{1 - lost_s / mtbf_s:.4g} · {1 / (1 + save_s / interval_s):.4g} = {100 * kept:.4g} %.",
        ),
        wrong=(
            (100 * (1 - lost_s / mtbf_s), "You left out the time of saving."),
            (
                100 * (1 - 60 * restart_min / mtbf_s) / (1 + save_s / interval_s),
                "You left out the work that is done again.",
            ),
            (100 * (1 - interval_s / 2 / mtbf_s) / (1 + save_s / interval_s), "You left out the restarts."),
            (
                100 * (1 - (60 * restart_min + interval_s) / mtbf_s) / (1 + save_s / interval_s),
                "You lost a whole interval each time. On average it is less.",
            ),
            (100 - 100 * kept, "That is what is lost."),
        ),
    )


@problem("fault-spares", chapter="16")
def fault_spares(dice: Random) -> Drawn:
    """How many spare nodes a job needs while broken ones are repaired."""
    nodes, repair_days = dice.choice((128, 256, 512, 1024, 2048)), dice.choice((1, 2, 3, 5))
    rate, aim = dice.choice((1.5, 2.5, 4, 6.5)), dice.choice((0.9, 0.99, 0.999))
    mean = nodes * rate / 1000 * repair_days
    wanted = spares.needed(mean, 1 - aim)
    return Drawn(
        question=f"A job on {nodes:,} nodes loses {rate:g} of them per 1,000 node-days, independently, and a broken"
        f" node is back after {repair_days} day{'s'[: repair_days > 1]}. How many spare nodes does it need so that with"
        f" a probability of at least {aim:g} enough of them are there when one looks?",
        answer=wanted,
        unit="",
        tolerance=0.001,
        steps=(
            f"Nodes under repair on average (Little): {nodes:,} · {rate:g}/1,000 · {repair_days} = {mean:.4g}.",
            f"Their number is Poisson: Pr[number <= spares] = sum of exp(-{mean:.4g}) · {mean:.4g}^i / i! for i = 0"
            " to spares.",
            f"The fewest spares with at least {aim:g} are {wanted}.",
        ),
        wrong=(
            (-int(-mean // 1), "That is the mean, rounded up. Often more nodes are broken than on average."),
            (mean, "That is the mean. Often more nodes are broken than on average."),
            (spares.needed(mean / repair_days, 1 - aim), "You took one day. Nodes pile up while the repair lasts."),
        ),
    )
