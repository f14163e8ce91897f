"""The schedule as data; standard library only."""

from parallel_lab.plan.check import PlanError, check_plan
from parallel_lab.plan.op import (
    COMPUTE,
    LANES,
    LETTERS,
    NAMES,
    RECEIVING,
    RECV,
    SEND,
    Needs,
    Op,
    Plan,
    Rows,
    collector_paused,
    recv,
    send,
)
from parallel_lab.plan.text import parse, to_grid

__all__ = [
    "COMPUTE",
    "LANES",
    "LETTERS",
    "NAMES",
    "RECEIVING",
    "RECV",
    "SEND",
    "Needs",
    "Op",
    "Plan",
    "PlanError",
    "Rows",
    "check_plan",
    "collector_paused",
    "parse",
    "recv",
    "send",
    "to_grid",
]
