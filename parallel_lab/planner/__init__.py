"""What a layout of a training run costs: memory, time, money; fitted to published runs; and which layout to take."""

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
    "Flags",
    "Found",
    "Framework",
    "Latent",
    "Matrix",
    "Model",
    "NothingFits",
    "Run",
    "Scheme",
    "Space",
    "Term",
    "accelerator",
    "accelerators",
    "all_flags",
    "at_rest",
    "calibrated",
    "cluster",
    "clusters",
    "constants",
    "deepspeed",
    "estimate",
    "faster",
    "fits",
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
    "room",
    "search",
    "sensitivity",
    "torchtitan",
    "total",
    "trade",
    "traffic",
    "words",
]
