"""What a run does when something breaks: it notices, goes on, and loses nothing."""

from parallel_lab.runtime import crash_points
from parallel_lab.systems.resilience import (
    asynchronous,
    checksum,
    folder,
    forgotten,
    goodput,
    interval,
    placement,
    savings,
    server_spares,
    spares,
)
from parallel_lab.systems.resilience.asynchronous import AsyncSaver
from parallel_lab.systems.resilience.beats import Recorded, record
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.detectors import Heartbeat, PhiAccrual, curve, judge, simulated_arrivals
from parallel_lab.systems.resilience.folder import latest, latest_whole
from parallel_lab.systems.resilience.goodput import Goodput
from parallel_lab.systems.resilience.job import Job, Outcome
from parallel_lab.systems.resilience.killed import killed_run
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.peer import PeerMemory
from parallel_lab.systems.resilience.recovery import NoReplica, Replica, Survived
from parallel_lab.systems.resilience.restart import Attempt, Backoff, GaveUp, Supervised, Supervisor, supervise
from parallel_lab.systems.resilience.rounds import Round, Rounds
from parallel_lab.systems.resilience.state import State, random_states, set_random_states
from parallel_lab.systems.resilience.timeline import Killed

__all__ = [
    "AsyncSaver",
    "Attempt",
    "Backoff",
    "GaveUp",
    "Goodput",
    "Heartbeat",
    "Job",
    "Killed",
    "NoReplica",
    "Order",
    "Outcome",
    "PeerMemory",
    "PhiAccrual",
    "Recorded",
    "Replica",
    "Round",
    "Rounds",
    "Stamp",
    "State",
    "Supervised",
    "Supervisor",
    "Survived",
    "asynchronous",
    "checksum",
    "crash_points",
    "curve",
    "folder",
    "forgotten",
    "goodput",
    "interval",
    "judge",
    "killed_run",
    "latest",
    "latest_whole",
    "placement",
    "random_states",
    "record",
    "savings",
    "server_spares",
    "set_random_states",
    "simulated_arrivals",
    "spares",
    "supervise",
]
