"""The ways to synchronize: when gradients or weights meet, and how stale they may be by then.

| strategy            | the field's name | what meets | when                          | who waits                      |
|---------------------|------------------|------------|-------------------------------|--------------------------------|
| `Synchronous()`     | BSP              | gradients  | every step                    | all, for the slowest           |
| `Partial(k)`        | backup workers   | gradients  | when `k` of a version came    | the first `k`, for the `k`-th  |
| `Stale(bound)`      | SSP              | gradients  | each by itself                | who is more than `bound` ahead |
| `Asynchronous()`    | ASP              | gradients  | each by itself                | nobody                         |
| `Mixed(switch_at)`  | ASP, then BSP    | gradients  | each by itself, later all     | nobody, later all              |
| `Hogwild()`         | lock-free        | gradients  | each by itself, in one memory | nobody                         |
| `LocalSteps(every)` | local SGD        | weights    | every H steps                 | all, at a meeting              |
| `OuterSteps(every)` | DiLoCo           | weights    | every H steps, an outer step  | all, at a meeting              |

`train` runs any of them on real ranks, `virtual.schedule` simulates them (but Hogwild) with the same objects.
"""

from parallel_lab.parameter_server import Update
from parallel_lab.synchronization.asynchronous import Asynchronous
from parallel_lab.synchronization.diloco import DiLoCo, OuterSteps
from parallel_lab.synchronization.hogwild import Hogwild, HogwildSGD
from parallel_lab.synchronization.local_sgd import LocalSGD, LocalSteps
from parallel_lab.synchronization.mixed import Mixed
from parallel_lab.synchronization.partial import Partial
from parallel_lab.synchronization.stale import Stale
from parallel_lab.synchronization.synchronous import Synchronous, SynchronousSGD
from parallel_lab.synchronization.train import Record, train

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
    "train",
]
