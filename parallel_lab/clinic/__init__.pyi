# The one list of names: lazy_loader reads it at run time, type checkers and editors before.
from .cases import CASES
from .causes import CAUSES, Cause, cause_named
from .chart import Chart, Unhealthy
from .failures import by_category, hang_gpu_hours, meets_one, published
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
    "by_category",
    "case_of",
    "cause_named",
    "diagnose",
    "examine",
    "fingerprint",
    "hang_gpu_hours",
    "judge",
    "meets_one",
    "one_process",
    "open_case",
    "published",
    "reads",
    "reports",
    "run_case",
    "same",
    "sends",
    "work",
]
