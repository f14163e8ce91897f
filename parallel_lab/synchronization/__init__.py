"""The ways to synchronize: when gradients or weights meet, and how stale they may be by then."""

from parallel_lab.synchronization import (
    asynchronous,
    compare,
    diloco,
    hogwild,
    local_sgd,
    mixed,
    partial,
    stale,
    synchronous,
    virtual,
)
from parallel_lab.synchronization.diloco import DiLoCo
from parallel_lab.synchronization.local_sgd import LocalSGD
from parallel_lab.synchronization.record import Record, Update, histogram

__all__ = [
    "DiLoCo",
    "LocalSGD",
    "Record",
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
    "virtual",
]
