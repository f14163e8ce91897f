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
from parallel_lab.planner.models import Latent, Matrix, Model, matrices, model, models
from parallel_lab.planner.runs import Field, Run, fields, run, runs
from parallel_lab.planner.scheme import Scheme
from parallel_lab.planner.terms import Term, largest, total

__all__ = [
    "Accelerator",
    "Cluster",
    "Field",
    "Latent",
    "Matrix",
    "Model",
    "Run",
    "Scheme",
    "Term",
    "accelerator",
    "accelerators",
    "by_hand",
    "cluster",
    "clusters",
    "faster",
    "fields",
    "fitted_share",
    "largest",
    "matrices",
    "model",
    "models",
    "run",
    "runs",
    "total",
]
