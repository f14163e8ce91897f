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
from parallel_lab.synchronization.asynchronous import Asynchronous
from parallel_lab.synchronization.diloco import DiLoCo
from parallel_lab.synchronization.local_sgd import LocalSGD
from parallel_lab.synchronization.mixed import Mixed
from parallel_lab.synchronization.partial import Partial
from parallel_lab.synchronization.record import Record, Update, histogram
from parallel_lab.synchronization.stale import Stale
from parallel_lab.synchronization.synchronous import Synchronous

__all__ = [
    "Asynchronous",
    "DiLoCo",
    "LocalSGD",
    "Mixed",
    "Partial",
    "Record",
    "Stale",
    "Synchronous",
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
