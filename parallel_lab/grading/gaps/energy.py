"""The gaps of chapter 20: the clock of least energy, what waiting burns, and tonnes from hours."""

from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.gaps.forms import function_gap


def energy_best_clock(static_w, dynamic_w, least):
    """The relative clock, from least to 1, at which computing takes least energy: power static_w + dynamic_w ν³."""
    return min(1.0, max(least, (static_w / (2 * dynamic_w)) ** (1 / 3)))


def energy_waiting_share(n, step_s, late_s):
    """The share of all ranks' energy that is spent waiting, where one of n ranks is late_s late; equal watts."""
    return (n - 1) * late_s / (n * (step_s + late_s))


def energy_tonnes(gpu_hours, gpu_w, server_share, pue, kg_per_kwh):
    """Tonnes of CO2; gpu_w is a GPU alone, and server_share of its server's power goes into GPUs."""
    return gpu_hours * gpu_w / server_share * pue / 1e3 * kg_per_kwh / 1e3


def _no_two(static_w, dynamic_w, least):
    return min(1.0, max(least, (static_w / dynamic_w) ** (1 / 3)))


def _square_root(static_w, dynamic_w, least):
    return min(1.0, max(least, (static_w / (2 * dynamic_w)) ** 0.5))


def _unclipped(static_w, dynamic_w, least):
    return (static_w / (2 * dynamic_w)) ** (1 / 3)


def _share_of_time(n, step_s, late_s):
    return late_s / (step_s + late_s)


def _against_one(n, step_s, late_s):
    return (n - 1) * late_s / (step_s + late_s)


def _of_work(n, step_s, late_s):
    return (n - 1) * late_s / (n * step_s)


def _gpus_alone(gpu_hours, gpu_w, server_share, pue, kg_per_kwh):
    return gpu_hours * gpu_w * pue * kg_per_kwh / 1e6


def _kilograms(gpu_hours, gpu_w, server_share, pue, kg_per_kwh):
    return energy_tonnes(gpu_hours, gpu_w, server_share, pue, kg_per_kwh) * 1e3


def _share_multiplied(gpu_hours, gpu_w, server_share, pue, kg_per_kwh):
    return gpu_hours * gpu_w * server_share * pue * kg_per_kwh / 1e6


GAPS: tuple[Exercise, ...] = (
    function_gap(
        energy_best_clock,
        tests={
            "Between the lowest and the highest clock": [(100, 300, 0.3), (80, 200, 0.2)],
            "At the ends": [(600, 200, 0.3), (10, 400, 0.5), (0, 300, 0.3)],
        },
        mistakes={
            "Time is 1/ν, so energy is static/ν + dynamic ν². What does the slope of the square bring?": _no_two,
            "The slope is 2 dynamic ν - static/ν². Which power of ν is left when it is 0?": _square_root,
            "The clock is between least and 1.": _unclipped,
        },
    ),
    function_gap(
        energy_waiting_share,
        tests={
            "A straggler among eight": [(8, 1.0, 0.5), (8, 2.0, 0.1)],
            "Two ranks, and a thousand": [(2, 1.0, 1.0), (1000, 10.0, 1.0)],
        },
        mistakes={
            "That is the share of time. The late rank works while the others wait.": _share_of_time,
            "All n ranks draw power until the end of the step.": _against_one,
            "The waiting itself draws power too: it stands in the total.": _of_work,
        },
    ),
    function_gap(
        energy_tonnes,
        tests={
            "A small run": [(1250, 700, 0.7, 1.1, 0.43)],
            "A large one": [(1_000_000, 400, 0.8, 1.2, 0.057)],
        },
        mistakes={
            "Processors, memory, network and fans of the server draw as well.": _gpus_alone,
            "That is in kilograms.": _kilograms,
            "The GPUs are a part of the server: the whole is more.": _share_multiplied,
        },
    ),
)
