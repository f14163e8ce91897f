# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from .cases import CASES
from .causes import CAUSES, Cause, cause_named
from .chart import Chart, Unhealthy
from .instruments import Instrument, Report, Samples, fingerprint, work
from .job import Case, alike, one_process, reads, reports, same, sends
from .ward import Diagnosis, Opened, case_of, diagnose, examine, judge, open_case, run_case

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
