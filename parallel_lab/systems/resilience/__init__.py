"""What a run does when something breaks: it notices, goes on, and loses nothing."""

from parallel_lab.systems.resilience import checksum, folder
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.folder import latest, latest_whole
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.state import State, random_states, set_random_states

__all__ = [
    "Order",
    "Stamp",
    "State",
    "checksum",
    "folder",
    "latest",
    "latest_whole",
    "random_states",
    "set_random_states",
]
