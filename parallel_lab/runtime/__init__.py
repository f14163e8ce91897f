"""Running functions on real ranks: `launch`, an emulated `Link`, faults, and errors that explain what went wrong.

`kernel` holds what runs beside the notebook, with a drawing of who talks to whom. `rank` holds what runs in each rank.
"""

from parallel_lab.network import Link, Nodes, ring_cost
from parallel_lab.runtime.device import Device, choose_device, rank_device
from parallel_lab.runtime.errors import Deadlock, LaunchError, Mismatch, RankFailed, Stopped, TimedOut
from parallel_lab.runtime.kernel.forkserver import restart
from parallel_lab.runtime.launch import Run, launch
from parallel_lab.runtime.mesh import make_mesh, seed_for
from parallel_lab.runtime.rank.faults import Delay, Drop, Fault, Kill

__all__ = [
    "Deadlock",
    "Delay",
    "Device",
    "Drop",
    "Fault",
    "Kill",
    "LaunchError",
    "Link",
    "Mismatch",
    "Nodes",
    "RankFailed",
    "Run",
    "Stopped",
    "TimedOut",
    "choose_device",
    "launch",
    "make_mesh",
    "rank_device",
    "restart",
    "ring_cost",
    "seed_for",
]
