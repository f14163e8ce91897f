"""Surviving faults: checkpoints, failure detectors, restarts, spares, corruption, hangs and a campaign of faults."""

from parallel_lab.systems.resilience import corruption, flight, hung_jobs, stragglers
from parallel_lab.systems.resilience.corruption import Replicas, checksum, compare_replicas, flip, held_by, is_outlier
from parallel_lab.systems.resilience.flight import Diagnosis, Dump, Finding, diagnose
from parallel_lab.systems.resilience.flipped_bits import BitTable, bit_table
from parallel_lab.systems.resilience.hung_jobs import HANGS, hang, synthetic
from parallel_lab.systems.resilience.stragglers import Slowness, any_slow, expected_step_s, slowness

__all__ = [
    "HANGS",
    "BitTable",
    "Diagnosis",
    "Dump",
    "Finding",
    "Replicas",
    "Slowness",
    "any_slow",
    "bit_table",
    "checksum",
    "compare_replicas",
    "corruption",
    "diagnose",
    "expected_step_s",
    "flight",
    "flip",
    "hang",
    "held_by",
    "hung_jobs",
    "is_outlier",
    "slowness",
    "stragglers",
    "synthetic",
]
