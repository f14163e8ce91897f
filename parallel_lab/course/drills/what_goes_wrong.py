"""Drills of chapter 23: bad machines, the price of a hang, a straggler, and two mistakes that show in one number."""

from random import Random

from parallel_lab.clinic.failures import hang_gpu_hours, meets_one
from parallel_lab.course.drills.engine import Drawn, problem


@problem("wrong-lemon", chapter="23")
def wrong_lemon(dice: Random) -> Drawn:
    """The chance that a job has at least one slow machine."""
    machines, share = dice.choice((16, 64, 128, 256, 512)), dice.choice((0.002, 0.005, 0.01))
    chance = meets_one(machines, share)
    return Drawn(
        question=f"{share:.1%} of the machines of a cluster are slow, unknown to the scheduler. A job gets"
        f" {machines} machines. With how many per cent chance has it at least one slow one?",
        answer=100 * chance,
        unit="%",
        steps=(
            f"All are good with a chance of (1 - {share:g})^{machines} = {1 - chance:.4g}.",
            f"At least one is slow: 1 - {1 - chance:.4g} = {100 * chance:.4g} %."
            " In a synchronous job that one sets the pace of all.",
        ),
        wrong=(
            (100 * machines * share, "You added up the chances. Then jobs with two slow machines count twice."),
            (100 - 100 * chance, "That is the chance that all are good."),
            (100 * share, "That is one machine."),
        ),
    )


@problem("wrong-hang", chapter="23")
def wrong_hang(dice: Random) -> Drawn:
    """GPU hours that one hang costs."""
    gpus = dice.choice((512, 1024, 4096, 16384))
    timeout_min, restart_min, every_min = dice.choice((10, 30)), dice.choice((3, 10)), dice.choice((10, 30, 60))
    hours = hang_gpu_hours(gpus, 60 * timeout_min, 60 * restart_min, 30 * every_min)
    return Drawn(
        question=f"A job on {gpus:,} GPUs hangs. The collectives' timeout is {timeout_min} minutes, a restart takes"
        f" {restart_min} minutes, checkpoints come every {every_min} minutes; take the mean of what is lost since the"
        " last one. How many GPU hours does this hang cost?",
        answer=hours,
        unit="",
        steps=(
            f"To notice {timeout_min} min, to restart {restart_min} min, to do again {every_min}/2 ="
            f" {every_min / 2:g} min: {timeout_min + restart_min + every_min / 2:g} min in all.",
            f"{gpus:,} GPUs · {timeout_min + restart_min + every_min / 2:g} min / 60 = {hours:,.4g} GPU hours.",
        ),
        wrong=(
            (gpus * (timeout_min + restart_min) / 60, "You left out the work that is done again."),
            (gpus * (timeout_min + restart_min + every_min) / 60, "You lost a whole interval. On average it is less."),
            (hours / gpus, "Those are hours of the job. All its GPUs lose them."),
            (gpus * timeout_min / 60, "You counted the timeout alone."),
            (gpus * (restart_min + every_min / 2) / 60, "You left out the time until somebody notices."),
        ),
    )


@problem("wrong-straggler", chapter="23")
def wrong_straggler(dice: Random) -> Drawn:
    """Whether a job is faster without its slow rank."""
    n, slow = dice.choice((4, 8, 16)), dice.choice((1.1, 1.3, 1.5, 2.0))
    kept, left_out = slow, n / (n - 1)
    return Drawn(
        question=f"{n} ranks share a fixed global batch equally; {n - 1} of them need 1 s for their share, one needs"
        f" {slow:g} s. The exchange is fast. You take the slow one out, and the others share its samples. How many"
        " seconds does a step take then?",
        answer=left_out,
        unit="s",
        steps=(
            f"With it, everybody waits for it: {kept:g} s.",
            f"Without it each of {n - 1} ranks has {n}/{n - 1} of its old share.",
            f"{n}/{n - 1} s = {left_out:.4g} s: {'worth it' if left_out < kept else 'not worth it'}.",
        ),
        wrong=(
            (kept, "That is the step with the slow rank."),
            (1, "The others have more samples than before."),
            (n / (n - 1 + 1 / slow), "You kept the slow rank, with a smaller share. It is taken out."),
            (1 + slow / (n - 1), "You added its seconds. A fast rank needs less time for the same samples."),
        ),
    )


@problem("wrong-world", chapter="23")
def wrong_world(dice: Random) -> Drawn:
    """The norm after a restart with the old number of ranks in the configuration."""
    old = dice.choice((8, 16, 32, 64))
    new, norm = old - dice.choice((1, 2, old // 4)), dice.choice((0.8, 1.6, 2.4))
    return Drawn(
        question=f"A job on {old} ranks logs gradient norms of about {norm:g}. It is restarted on {new}, and still"
        f" divides the sum of the ranks' mean gradients by {old}. Each rank's gradient is about as before. About which"
        " norm does it log?",
        answer=norm * new / old,
        unit="",
        steps=(
            f"The sum is over {new} ranks, the division by {old}: the mean times {new}/{old}.",
            f"{norm:g} · {new}/{old} = {norm * new / old:.4g}.",
        ),
        wrong=(
            (norm, "You divided by the number of ranks that run. The job divides by the old one."),
            (norm * old / new, "You divided the other way around."),
            (norm * (new / old) ** 0.5, "You took a root. The ranks' gradients are alike, and add up."),
        ),
    )
