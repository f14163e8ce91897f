"""Running functions on real ranks: `launch`, an emulated `Link`, faults, and errors that explain what went wrong.

Who talks to whom during a launch:

    kernel      -> fork server  lines of JSON with descriptors attached: fork these ranks, end those
    fork server -> kernel       a pipe: process numbers and exit codes
    kernel     <-> each rank    a socket of pickles (wire): questions, progress, the result and the trace
    each rank   -> kernel       a pipe: what it prints
    kernel     <-> each rank    a folder: the job; a rank's last calls and its stack, readable after its death
    rank       <-> rank         the door (backend), and gloo or NCCL behind it
"""

from parallel_lab.network import Link, ring_cost
from parallel_lab.runtime.device import Device, choose_device, rank_device
from parallel_lab.runtime.errors import Deadlock, LaunchError, Mismatch, RankFailed
from parallel_lab.runtime.faults import Delay, Drop, Fault, Kill
from parallel_lab.runtime.forkserver import restart
from parallel_lab.runtime.launch import Run, launch
from parallel_lab.runtime.mesh import make_mesh, seed_for

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
    "RankFailed",
    "Run",
    "choose_device",
    "launch",
    "make_mesh",
    "rank_device",
    "restart",
    "ring_cost",
    "seed_for",
]
