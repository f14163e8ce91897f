# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from . import caps, carbon, moving, roofline, sensors, slack, tables, to_loss, tools, waiting
from .caps import Chip, Choice, Setting, least_energy, race_to_idle_j
from .carbon import PUBLISHED, PublishedRun, Work, daily, kwh, schedule, tonnes
from .moving import all_reduce_j, matmul_j, multiply_add_j, reuse_that_pays
from .roofline import EnergyRoofline
from .sensors import Meter, Nvml, Rapl, found, nvml, rapl
from .slack import Slowed, slow_down
from .tables import Reached, Saving, reached, saving, summary
from .to_loss import cheapest, front, habit, quickest
from .tools import Report, ask
from .waiting import Burned, burned, straggler_share

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
