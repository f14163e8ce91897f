"""The broken jobs, one a file; each file has a `CASE`."""

from importlib import import_module

from parallel_lab.clinic.job import Case

_NAMES = (
    *("skew", "straggler", "hosts", "noise"),
    *("tied", "early", "cache", "order"),
    *("uneven", "overflow", "drift", "resume"),
    *("skipped", "starved", "clipped", "torn"),
    *("copies", "circle", "gathered", "shrunk"),
)
CASES: dict[int, Case] = {
    case.number: case
    for case in sorted((import_module(f"{__name__}.{name}").CASE for name in _NAMES), key=lambda case: case.number)
}
