# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from . import formulas
from .apply import parallelize
from .checkpoint import Progress, describe, latest, load, save
from .layout import Layout
from .norm import clip, global_norm
from .parallel import Parallel
from .parameters import Held, answered, held, refresh
from .step import Outcome, train_step

__all__ = [
    "Held",
    "Layout",
    "Outcome",
    "Parallel",
    "Progress",
    "answered",
    "clip",
    "describe",
    "formulas",
    "global_norm",
    "held",
    "latest",
    "load",
    "parallelize",
    "refresh",
    "save",
    "train_step",
]
