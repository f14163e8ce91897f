# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from . import (
    collectives,
    course,
    data_parallel,
    model,
    network,
    parameter_server,
    pipeline,
    plan,
    runtime,
    simulate,
    synchronization,
    trace,
    view,
)
from .course import ask, case, check, hint, quiz, show
from .runtime import Deadlock, Delay, Drop, Kill, LaunchError, Link, Mismatch, RankFailed, Run, launch, seed_for
from .trace import progress, span
from .view import draw

__version__: str

__all__ = [
    "Deadlock",
    "Delay",
    "Drop",
    "Kill",
    "LaunchError",
    "Link",
    "Mismatch",
    "RankFailed",
    "Run",
    "ask",
    "case",
    "check",
    "collectives",
    "course",
    "data_parallel",
    "draw",
    "hint",
    "launch",
    "model",
    "network",
    "parameter_server",
    "pipeline",
    "plan",
    "progress",
    "quiz",
    "runtime",
    "seed_for",
    "show",
    "simulate",
    "span",
    "synchronization",
    "trace",
    "view",
]
