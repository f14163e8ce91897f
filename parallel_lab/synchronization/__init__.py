"""The ways to synchronize: when gradients or weights meet, and how stale they may be by then."""

from parallel_lab.synchronization import (
    asynchronous,
    diloco,
    hogwild,
    local_sgd,
    mixed,
    partial,
    stale,
    synchronous,
    virtual,
)
from parallel_lab.synchronization.asynchronous import Asynchronous
from parallel_lab.synchronization.diloco import DiLoCo, OuterSteps
from parallel_lab.synchronization.hogwild import Hogwild, HogwildSGD
from parallel_lab.synchronization.local_sgd import LocalSGD, LocalSteps
from parallel_lab.synchronization.mixed import Mixed
from parallel_lab.synchronization.partial import Partial
from parallel_lab.synchronization.record import Record, Update, histogram
from parallel_lab.synchronization.stale import Stale
from parallel_lab.synchronization.synchronous import Synchronous, SynchronousSGD
from parallel_lab.synchronization.train import train
from parallel_lab.synchronization.virtual import compare

__all__ = [
    "Asynchronous",
    "DiLoCo",
    "Hogwild",
    "HogwildSGD",
    "LocalSGD",
    "LocalSteps",
    "Mixed",
    "OuterSteps",
    "Partial",
    "Record",
    "Stale",
    "Synchronous",
    "SynchronousSGD",
    "Update",
    "asynchronous",
    "compare",
    "diloco",
    "histogram",
    "hogwild",
    "local_sgd",
    "mixed",
    "partial",
    "stale",
    "synchronous",
    "train",
    "virtual",
]
