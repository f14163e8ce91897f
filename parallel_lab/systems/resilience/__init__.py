"""What a run does when something breaks: it notices, goes on, and loses nothing."""

from parallel_lab.systems.resilience import (
    asynchronous,
    checksum,
    corruption,
    crash_points,
    flight,
    folder,
    forgotten,
    hung_jobs,
    placement,
    savings,
    spikes,
    stragglers,
)
from parallel_lab.systems.resilience.asynchronous import AsyncSaver
from parallel_lab.systems.resilience.campaign import Campaign, Ground, Verdict, campaign, strike
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.corruption import Replicas, compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.faults import KINDS, Case
from parallel_lab.systems.resilience.flight import Diagnosis, Dump, Finding, diagnose
from parallel_lab.systems.resilience.flipped_bits import BitTable, bit_table
from parallel_lab.systems.resilience.folder import latest, latest_whole
from parallel_lab.systems.resilience.hung_jobs import HANGS, hang, synthetic
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.peer import PeerMemory
from parallel_lab.systems.resilience.spikes import CAUSES, Spike, spike
from parallel_lab.systems.resilience.state import State, random_states, set_random_states
from parallel_lab.systems.resilience.stragglers import Slowness, any_slow, expected_step_s, slowness

__all__ = [
    "CAUSES",
    "HANGS",
    "KINDS",
    "AsyncSaver",
    "BitTable",
    "Campaign",
    "Case",
    "Diagnosis",
    "Dump",
    "Finding",
    "Ground",
    "Order",
    "PeerMemory",
    "Replicas",
    "Slowness",
    "Spike",
    "Stamp",
    "State",
    "Verdict",
    "any_slow",
    "asynchronous",
    "bit_table",
    "campaign",
    "checksum",
    "compare_replicas",
    "corruption",
    "crash_points",
    "diagnose",
    "expected_step_s",
    "flight",
    "flip",
    "folder",
    "forgotten",
    "hang",
    "held_by",
    "hung_jobs",
    "is_outlier",
    "latest",
    "latest_whole",
    "placement",
    "random_states",
    "savings",
    "set_random_states",
    "slowness",
    "spike",
    "spikes",
    "stragglers",
    "strike",
    "synthetic",
]
