"""What a run does when something breaks: it notices, goes on, and loses nothing."""

from parallel_lab.runtime import crash_points
from parallel_lab.systems.resilience import asynchronous, checksum, folder, forgotten, placement, savings
from parallel_lab.systems.resilience.asynchronous import AsyncSaver
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.folder import latest, latest_whole
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.peer import PeerMemory
from parallel_lab.systems.resilience.state import State, random_states, set_random_states

__all__ = [
    "AsyncSaver",
    "Order",
    "PeerMemory",
    "Stamp",
    "State",
    "asynchronous",
    "checksum",
    "crash_points",
    "folder",
    "forgotten",
    "latest",
    "latest_whole",
    "placement",
    "random_states",
    "savings",
    "set_random_states",
]
