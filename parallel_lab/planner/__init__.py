"""What a layout of a training run costs: memory, time, money; fitted to published runs; and which layout to take."""

from parallel_lab.planner.by_hand import by_hand, fitted_share
from parallel_lab.planner.clusters import (
    Accelerator,
    Cluster,
    accelerator,
    accelerators,
    cluster,
    clusters,
    faster,
)
from parallel_lab.planner.constants import BOUNDS, Constants, calibrated, constants
from parallel_lab.planner.cost import Run
from parallel_lab.planner.estimate import Estimate, estimate
from parallel_lab.planner.exchange import Exchange
from parallel_lab.planner.memory import at_rest, fits, memory, room
from parallel_lab.planner.models import Latent, Matrix, Model, matrices, model, models
from parallel_lab.planner.replays import Replay, replays
from parallel_lab.planner.runs import Field, TrainingRun, fields, run, runs
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.terms import Term, largest, total
from parallel_lab.planner.traffic import traffic

__all__ = [
    "BOUNDS",
    "Accelerator",
    "Cluster",
    "Constants",
    "Estimate",
    "Exchange",
    "Field",
    "Latent",
    "Matrix",
    "Model",
    "Replay",
    "Run",
    "Scheme",
    "Term",
    "TrainingRun",
    "accelerator",
    "accelerators",
    "at_rest",
    "by_hand",
    "calibrated",
    "cluster",
    "clusters",
    "constants",
    "estimate",
    "faster",
    "fields",
    "fits",
    "fitted_share",
    "largest",
    "matrices",
    "memory",
    "model",
    "models",
    "replays",
    "room",
    "run",
    "runs",
    "total",
    "traffic",
]
