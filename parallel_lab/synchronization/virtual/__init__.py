"""Virtual time, as chapters use it: `schedule` what happens when, `replay` it with real gradients, draw its `trace`."""

from parallel_lab.parameter_server import Update
from parallel_lab.synchronization.virtual.clock import Schedule, Strategy, schedule, slow_worker, trace
from parallel_lab.synchronization.virtual.retrain import Curve, replay

__all__ = ["Curve", "Schedule", "Strategy", "Update", "replay", "schedule", "slow_worker", "trace"]
