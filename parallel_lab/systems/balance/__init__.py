"""Work dealt out over ranks that differ: by speed, from a queue, by stealing; sequences and experts of equal load."""

from parallel_lab.systems.balance import device, experts, sequences, shares, stealing, work_queue
from parallel_lab.systems.balance.adaptive import adaptive
from parallel_lab.systems.balance.device import Device, delays
from parallel_lab.systems.balance.gradient import Done, shared_gradient
from parallel_lab.systems.balance.measure import Measured, dealt, measure, queued, shared, stolen
from parallel_lab.systems.balance.sequences import karmarkar_karp, lower_bound, lpt
from parallel_lab.systems.balance.shares import Meter, gain, moved, proportional, redistribute
from parallel_lab.systems.balance.stealing import Deques
from parallel_lab.systems.balance.work_queue import Counters

__all__ = [
    "Counters",
    "Deques",
    "Device",
    "Done",
    "Measured",
    "Meter",
    "adaptive",
    "dealt",
    "delays",
    "device",
    "experts",
    "gain",
    "karmarkar_karp",
    "lower_bound",
    "lpt",
    "measure",
    "moved",
    "proportional",
    "queued",
    "redistribute",
    "sequences",
    "shared",
    "shared_gradient",
    "shares",
    "stealing",
    "stolen",
    "work_queue",
]
