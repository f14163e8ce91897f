"""What training costs in energy: sensors, tables of real GPUs, caps, waiting, moving bytes, and carbon."""

from parallel_lab.systems.energy import caps, carbon, moving, roofline, sensors, slack, tables, to_loss, tools, waiting
from parallel_lab.systems.energy.caps import Chip, Choice, Setting, least_energy, race_to_idle_j
from parallel_lab.systems.energy.carbon import PUBLISHED, PublishedRun, Work, daily, kwh, schedule, tonnes
from parallel_lab.systems.energy.moving import all_reduce_j, matmul_j, multiply_add_j, reuse_that_pays
from parallel_lab.systems.energy.roofline import EnergyRoofline
from parallel_lab.systems.energy.sensors import Meter, Nvml, Rapl, found, nvml, rapl
from parallel_lab.systems.energy.slack import Slowed, slow_down
from parallel_lab.systems.energy.tables import Reached, Saving, reached, saving, summary
from parallel_lab.systems.energy.to_loss import cheapest, front, habit, quickest
from parallel_lab.systems.energy.tools import Report, ask
from parallel_lab.systems.energy.waiting import Burned, burned, straggler_share

__all__ = [
    "PUBLISHED",
    "Burned",
    "Chip",
    "Choice",
    "EnergyRoofline",
    "Meter",
    "Nvml",
    "PublishedRun",
    "Rapl",
    "Reached",
    "Report",
    "Saving",
    "Setting",
    "Slowed",
    "Work",
    "all_reduce_j",
    "ask",
    "burned",
    "caps",
    "carbon",
    "cheapest",
    "daily",
    "found",
    "front",
    "habit",
    "kwh",
    "least_energy",
    "matmul_j",
    "moving",
    "multiply_add_j",
    "nvml",
    "quickest",
    "race_to_idle_j",
    "rapl",
    "reached",
    "reuse_that_pays",
    "roofline",
    "saving",
    "schedule",
    "sensors",
    "slack",
    "slow_down",
    "straggler_share",
    "summary",
    "tables",
    "to_loss",
    "tonnes",
    "tools",
    "waiting",
]
