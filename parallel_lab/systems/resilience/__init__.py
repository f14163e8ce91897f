"""What a run does when something breaks: it notices, goes on, and loses nothing."""

from parallel_lab.runtime import crash_points
from parallel_lab.systems.resilience import (
    asynchronous,
    checksum,
    corruption,
    flight,
    folder,
    forgotten,
    goodput,
    hung_jobs,
    interval,
    placement,
    power_cut,
    savings,
    server_spares,
    spares,
    spikes,
    stragglers,
)
from parallel_lab.systems.resilience.asynchronous import AsyncSaver
from parallel_lab.systems.resilience.beats import Recorded, record
from parallel_lab.systems.resilience.campaign import Campaign, Ground, Verdict, campaign, strike
from parallel_lab.systems.resilience.checksum import Stamp
from parallel_lab.systems.resilience.corruption import Replicas, compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.detectors import Heartbeat, PhiAccrual, curve, judge, simulated_arrivals
from parallel_lab.systems.resilience.faults import KINDS, Case
from parallel_lab.systems.resilience.flight import Diagnosis, Dump, Finding, diagnose
from parallel_lab.systems.resilience.flipped_bits import BitTable, bit_table
from parallel_lab.systems.resilience.folder import latest, latest_whole
from parallel_lab.systems.resilience.goodput import Goodput
from parallel_lab.systems.resilience.hung_jobs import HANGS, hang, synthetic
from parallel_lab.systems.resilience.job import Job, Outcome
from parallel_lab.systems.resilience.killed import killed_run
from parallel_lab.systems.resilience.order import Order
from parallel_lab.systems.resilience.peer import PeerMemory
from parallel_lab.systems.resilience.recovery import NoReplica, Replica, Survived
from parallel_lab.systems.resilience.restart import Attempt, Backoff, GaveUp, Supervised, Supervisor, supervise
from parallel_lab.systems.resilience.rounds import Round, Rounds
from parallel_lab.systems.resilience.spikes import CAUSES, Spike, spike
from parallel_lab.systems.resilience.state import State, random_states, set_random_states
from parallel_lab.systems.resilience.stragglers import Slowness, any_slow, expected_step_s, slowness
from parallel_lab.systems.resilience.timeline import Killed

__all__ = [
    "CAUSES",
    "HANGS",
    "KINDS",
    "AsyncSaver",
    "Attempt",
    "Backoff",
    "BitTable",
    "Campaign",
    "Case",
    "Diagnosis",
    "Dump",
    "Finding",
    "GaveUp",
    "Goodput",
    "Ground",
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
    "Replicas",
    "Round",
    "Rounds",
    "Slowness",
    "Spike",
    "Stamp",
    "State",
    "Supervised",
    "Supervisor",
    "Survived",
    "Verdict",
    "any_slow",
    "asynchronous",
    "bit_table",
    "campaign",
    "checksum",
    "compare_replicas",
    "corruption",
    "crash_points",
    "curve",
    "diagnose",
    "expected_step_s",
    "flight",
    "flip",
    "folder",
    "forgotten",
    "goodput",
    "hang",
    "held_by",
    "hung_jobs",
    "interval",
    "is_outlier",
    "judge",
    "killed_run",
    "latest",
    "latest_whole",
    "placement",
    "power_cut",
    "random_states",
    "record",
    "savings",
    "server_spares",
    "set_random_states",
    "simulated_arrivals",
    "slowness",
    "spares",
    "spike",
    "spikes",
    "stragglers",
    "strike",
    "supervise",
    "synthetic",
]
