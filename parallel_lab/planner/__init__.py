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
from parallel_lab.planner.flags import Flags, all_flags, deepspeed, hybrid_train, megatron, torchtitan
from parallel_lab.planner.frameworks import Framework, frameworks
from parallel_lab.planner.memory import at_rest, fits, memory, room
from parallel_lab.planner.models import Latent, Matrix, Model, matrices, model, models
from parallel_lab.planner.replays import Replay, replays
from parallel_lab.planner.runs import Field, TrainingRun, fields, run, runs
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.search import Found, NothingFits, model_of, search
from parallel_lab.planner.sensitivity import CHANGES, sensitivity
from parallel_lab.planner.space import Space
from parallel_lab.planner.terms import Term, largest, total
from parallel_lab.planner.traffic import traffic
from parallel_lab.planner.words import reasons, trade, words

__all__ = [
    "BOUNDS",
    "CHANGES",
    "Accelerator",
    "Cluster",
    "Constants",
    "Estimate",
    "Exchange",
    "Field",
    "Flags",
    "Found",
    "Framework",
    "Latent",
    "Matrix",
    "Model",
    "NothingFits",
    "Replay",
    "Run",
    "Scheme",
    "Space",
    "Term",
    "TrainingRun",
    "accelerator",
    "accelerators",
    "all_flags",
    "at_rest",
    "by_hand",
    "calibrated",
    "cluster",
    "clusters",
    "constants",
    "deepspeed",
    "estimate",
    "faster",
    "fields",
    "fits",
    "fitted_share",
    "frameworks",
    "hybrid_train",
    "largest",
    "matrices",
    "megatron",
    "memory",
    "model",
    "model_of",
    "models",
    "reasons",
    "replays",
    "room",
    "run",
    "runs",
    "search",
    "sensitivity",
    "torchtitan",
    "total",
    "trade",
    "traffic",
    "words",
]
