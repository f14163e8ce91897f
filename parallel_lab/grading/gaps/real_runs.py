"""The gaps of chapter 22: a step from hours, the GPUs that a batch can feed, and failures on a larger cluster."""

import math

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap

SECONDS_PER_HOUR = 3600
HOURS_PER_DAY = 24


def runs_step_s(gpu_hours, tokens, gpus, batch, seq):
    """The mean seconds of a step of `batch` sequences, if all `tokens` took so many GPU hours on `gpus`."""
    return gpu_hours * SECONDS_PER_HOUR / gpus * batch * seq / tokens


def runs_most_gpus(batch, microbatch, pp, chunks, tp, bubble):
    """How many GPUs a batch can feed, if the bubble may be at most `bubble` times the busy time; 0 if none."""
    least = max(1, math.ceil((pp - 1) / (chunks * bubble)))
    return pp * tp * (batch // (microbatch * least))


def runs_hours_between(failures, days, gpus, other_gpus):
    """Hours between failures on other_gpus, if each GPU fails as often as it did in that run."""
    return days * HOURS_PER_DAY / failures * gpus / other_gpus


def _in_hours(gpu_hours, tokens, gpus, batch, seq):
    return gpu_hours / gpus * batch * seq / tokens


def _one_gpu(gpu_hours, tokens, gpus, batch, seq):
    return gpu_hours * SECONDS_PER_HOUR * batch * seq / tokens


def _sequences_for_tokens(gpu_hours, tokens, gpus, batch, seq):
    return gpu_hours * SECONDS_PER_HOUR / gpus * batch / tokens


def _no_chunks(batch, microbatch, pp, chunks, tp, bubble):
    return runs_most_gpus(batch, microbatch, pp, 1, tp, bubble)


def _of_the_total(batch, microbatch, pp, chunks, tp, bubble):
    least = max(1, math.ceil((pp - 1) / chunks * (1 - bubble) / bubble))
    return pp * tp * (batch // (microbatch * least))


def _pipelines(batch, microbatch, pp, chunks, tp, bubble):
    return runs_most_gpus(batch, microbatch, pp, chunks, tp, bubble) // (pp * tp)


def _longer(failures, days, gpus, other_gpus):
    return days * HOURS_PER_DAY / failures * other_gpus / gpus


def _unchanged(failures, days, gpus, other_gpus):
    return days * HOURS_PER_DAY / failures


def _in_days(failures, days, gpus, other_gpus):
    return days / failures * gpus / other_gpus


GAPS: tuple[Exercise, ...] = (
    function_gap(
        runs_step_s,
        tests={
            "A mixture of experts on 2,048 GPUs": [(180_000, 1e12, 2048, 15_360, 4096)],
            "Dense models": [(1_082_990, 366e9, 384, 2048, 2048), (1_105_920, 400e9, 768, 4224, 2048)],
        },
        mistakes={
            "A step is asked in seconds.": _in_hours,
            "All GPUs work at once.": _one_gpu,
            "The batch is in sequences, and the tokens are tokens.": _sequences_for_tokens,
        },
    ),
    function_gap(
        runs_most_gpus,
        tests={
            "With chunks": [(2048, 1, 16, 8, 8, 0.1), (1920, 2, 12, 3, 4, 0.05)],
            "Where the bubble asks for little": [(64, 1, 2, 4, 8, 0.5), (1024, 1, 1, 1, 8, 0.1)],
            "A batch too small for one pipeline": [(8, 4, 16, 1, 8, 0.05)],
        },
        mistakes={
            "Chunks divide the bubble.": _no_chunks,
            "That is a share of the whole step. The bubble was to be a share of the busy time.": _of_the_total,
            "That is the number of pipelines. How many GPUs are in one?": _pipelines,
        },
    ),
    function_gap(
        runs_hours_between,
        tests={
            "More GPUs": [(419, 54, 16_384, 100_000), (10, 20, 512, 2048)],
            "Fewer": [(100, 30, 4096, 1024)],
        },
        mistakes={
            "Twice the GPUs fail twice as often.": _longer,
            "That is the run as it was. The other cluster has another size.": _unchanged,
            "In hours, please.": _in_days,
        },
    ),
)
