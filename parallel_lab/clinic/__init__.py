"""Broken training jobs, each with one hidden cause, and the judge of who finds and mends it."""

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.causes import CAUSES, Cause, cause_named
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import Instrument, Report, Samples, fingerprint, work
from parallel_lab.clinic.job import Case, alike, one_process, reads, reports, same, sends
from parallel_lab.clinic.ward import Diagnosis, Opened, case_of, diagnose, examine, judge, open_case, run_case

__all__ = [
    "CASES",
    "CAUSES",
    "Case",
    "Cause",
    "Chart",
    "Diagnosis",
    "Instrument",
    "Opened",
    "Report",
    "Samples",
    "Unhealthy",
    "alike",
    "case_of",
    "cause_named",
    "diagnose",
    "examine",
    "fingerprint",
    "judge",
    "one_process",
    "open_case",
    "reads",
    "reports",
    "run_case",
    "same",
    "sends",
    "work",
]
