"""The gaps of chapter 01: bytes per parameter, how many GPUs a training needs, and how often to save."""

import math

from parallel_lab.grading.gaps.forms import function_gap
from parallel_lab.model import budget


def bytes_per_parameter(mixed, moments):
    """Bytes per parameter: itself, its gradient, the float32 copy of mixed precision, and the optimizer's moments."""
    return (2 + 2 + 4 if mixed else 4 + 4) + 4 * moments


def gpus_needed(parameters, tokens, days, flops_per_s, memory_bytes):
    """The fewest GPUs that hold 16 bytes per parameter and are done with 6 N D FLOPs in time."""
    for_time = 6 * parameters * tokens / (days * 86_400 * flops_per_s)
    return math.ceil(max(for_time, 16 * parameters / memory_bytes))


def save_interval_s(save_s, mtbf_h, machines):
    """Young's interval between checkpoints of a job that any of its machines can end."""
    return budget.save_interval_s(save_s, mtbf_h * 3600 / machines)


def _time_only(parameters, tokens, days, flops_per_s, memory_bytes):
    return gpus_needed(parameters, tokens, days, flops_per_s, math.inf)


def _one_product(parameters, tokens, days, flops_per_s, memory_bytes):
    return gpus_needed(parameters, tokens / 3, days, flops_per_s, memory_bytes)


def _with_day_of(seconds, parameters, tokens, days, *rest):
    return gpus_needed(parameters, tokens, days * seconds / 86_400, *rest)


def _both(parameters, tokens, days, flops_per_s, memory_bytes):
    """The GPUs for the time and those for the room, not rounded."""
    return 6 * parameters * tokens / (days * 86_400 * flops_per_s), 16 * parameters / memory_bytes


GAPS = (
    function_gap(
        bytes_per_parameter,
        tests={
            "Adam, which has two moments": [(mixed, 2) for mixed in (False, True)],
            "SGD with momentum, which has one, and without, which has none": [
                (mixed, moments) for mixed in (False, True) for moments in (1, 0)
            ],
        },
        mistakes={
            "That is the same with any optimizer. What does it keep for each parameter?": lambda mixed, moments: 8,
            "A moment is one number. Adam's 8 bytes are of how many moments?": lambda mixed, moments: 8 + 8 * moments,
            "Sixteen is Adam's. What does an optimizer with fewer moments leave away?": lambda mixed, moments: 16,
            "Where is the float32 copy of the weights, without which small updates are lost?": (
                lambda mixed, moments: (4 if mixed else 8) + 4 * moments
            ),
            "In mixed precision the moments stay in float32; only weights and gradients have 16 bits.": (
                lambda mixed, moments: 8 + (2 if mixed else 4) * moments
            ),
            "In mixed precision not all has 16 bits: the moments are float32, and so is a copy of the weights.": (
                lambda mixed, moments: (4 if mixed else 8) + (2 if mixed else 4) * moments
            ),
            "That has 16 bits throughout. Which numbers are float32 in mixed precision, and which without it?": (
                lambda mixed, moments: 4 + 2 * moments
            ),
            "A moment is a float32 number: how many bytes has each?": lambda mixed, moments: 8 + 2 * moments,
            "Without mixed precision the weight and its gradient are float32, with it they have 16 bits.": (
                lambda mixed, moments: (8 if mixed else 4) + 4 * moments
            ),
            "Where is the gradient? It has the dtype of the weight.": (
                lambda mixed, moments: (6 if mixed else 4) + 4 * moments
            ),
            "Which numbers does a parameter have beside its weight and moments, and in mixed precision which more?": (
                lambda mixed, moments: (2 if mixed else 4) + 4 * moments
            ),
            "Beside a float32 copy, weight and gradient of mixed precision have 16 bits.": (
                lambda mixed, moments: (12 if mixed else 8) + 4 * moments
            ),
            "Where is the gradient of mixed precision? It has 16 bits, as the weight has.": (
                lambda mixed, moments: (6 if mixed else 8) + 4 * moments
            ),
            "In mixed precision the gradient has 16 bits here, as the weight has.": (
                lambda mixed, moments: (10 if mixed else 8) + 4 * moments
            ),
            "In float32 the weight itself is what the float32 copy is in mixed precision: there is no other.": (
                lambda mixed, moments: (8 if mixed else 12) + 4 * moments
            ),
        },
    ),
    function_gap(
        gpus_needed,
        tests={
            "A model that fits into a few GPUs, and has to be done in time": lambda dice: [
                (7_000_000_000, dice.randrange(10**12, 3 * 10**12), days, 125e12, 80e9) for days in (7, 30, 90)
            ],
            "A large model with time enough: it also has to fit": [
                (70_000_000_000, 10**11, 60, 400e12, 80e9),
                (405_000_000_000, 10**12, 3650, 400e12, 80e9),
                (405_000_000_000, 15_600_000_000_000, 90, 400e12, 80e9),
            ],
        },
        mistakes={
            "They are fast enough, but do they hold the state, 16 bytes per parameter?": _time_only,
            "They hold the state, but are they done in time?": (
                lambda parameters, tokens, days, flops_per_s, memory_bytes: math.ceil(16 * parameters / memory_bytes)
            ),
            "They hold the weights. What else belongs to the state, of 16 bytes per parameter?": (
                lambda parameters, tokens, days, flops_per_s, memory_bytes: gpus_needed(
                    parameters, tokens, days, flops_per_s, 4 * memory_bytes
                )
            ),
            "2 FLOPs a weight and token are the forward pass alone. What does the backward pass cost?": _one_product,
            "8 N D counts a forward pass that is done once more. The fewest GPUs recompute nothing.": (
                lambda parameters, tokens, *rest: gpus_needed(parameters, tokens * 8 / 6, *rest)
            ),
            "A tenth of a GPU missing is one GPU missing: round up.": lambda *given: math.floor(max(_both(*given))),
            "There are whole GPUs only: round up.": lambda *given: max(_both(*given)),
            "Where the number is whole already, no further GPU is needed: rounding up adds nothing there.": (
                lambda *given: math.floor(max(_both(*given))) + 1
            ),
            "Rounded to the nearest, a part of a GPU may be missing: round up.": (
                lambda *given: round(max(_both(*given)))
            ),
            "The same GPUs compute and hold: the larger number decides, not the sum.": (
                lambda *given: math.ceil(sum(_both(*given)))
            ),
            "Both have to be met, so the larger number decides.": lambda *given: math.ceil(min(_both(*given))),
            "A GPU computes so many FLOPs in a second. How many seconds has a day?": [
                lambda *given: _with_day_of(24, *given),
                lambda *given: _with_day_of(1, *given),
                lambda *given: _with_day_of(24 * 60, *given),
                lambda *given: _with_day_of(3600, *given),
            ],
        },
    ),
    function_gap(
        save_interval_s,
        tests={
            "One machine": lambda dice: [(60, dice.randrange(100, 1000), 1), (600, 50_000, 1)],
            "Many machines, each with the same MTBF": lambda dice: [
                (60, 50_000, dice.randrange(100, 20_000)),
                (300, 8_760, 64),
            ],
        },
        mistakes={
            "The job stops when any machine fails: what is the time between failures of the job?": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, 1)
            ),
            "More machines fail more often: is the time between failures of the job longer than that of one machine?": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h * machines, 1)
            ),
            "More machines fail more often, so the job saves more often than one machine would, not less often.": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, 1) * machines
            ),
            "The number of machines divides the MTBF, which stands under the root, and not the interval.": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, 1) / machines
            ),
            "The MTBF is in hours, the interval in seconds.": [
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h / 3600, machines),
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h / 60, machines),
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, machines) / 3600,
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, machines) / 60,
            ],
            "In which unit is that? What does Young's formula do with the product of two times?": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s, mtbf_h, machines) ** 2
            ),
            "On average half an interval is lost: where has the 2 gone?": (
                lambda save_s, mtbf_h, machines: save_interval_s(save_s / 2, mtbf_h, machines)
            ),
        },
    ),
)
