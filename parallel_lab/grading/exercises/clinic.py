"""Chapter 23: five broken jobs of the clinic; the cause by its name, and the mended program by running it."""

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.causes import CAUSES, cause_named
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.ward import judge
from parallel_lab.grading import clinical
from parallel_lab.grading.exercise import Check, Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong


@grader
def cured(outcome: Outcome) -> None:
    """The cause is named, and the job does what is asked of it."""
    case, seed = CASES[outcome.case["job"]], outcome.inputs[0][0]
    try:
        named = cause_named(outcome.results[0]["cause"])
    except ValueError as error:
        raise Wrong(f"case {case.number}: {error}", "CAUSES has the names; `plab clinic causes` lists them.") from None
    if named.name != case.cause:
        seen = f"case {case.number}: the cause is not {named.name}"
        raise Wrong(seen, f"It would show so: {CAUSES[named.name].signature} Compare with the chart.")
    try:
        judge(case, Chart.of(seed, outcome.results, outcome.trace))
    except Unhealthy as wrong:
        raise Wrong(f"case {case.number}: {wrong.seen}", wrong.advice) from None


def _job(number: int, *ranks: int) -> list[Check]:
    """Cause and mend of a case, on fresh data."""
    return on(ranks or (CASES[number].ranks,), cured(), job=number)


EXERCISE = Exercise(
    name="clinic",
    given=clinical.seeded,
    drive=clinical.treat,
    device="cpu",
    tests={
        "Case 12, whose runs test worse the more often they were interrupted": _job(12),
        "Case 6, which is quicker and a little worse": _job(6),
        "Case 11, where one checkpoint scores differently": _job(11),
        "Case 7, which is killed for memory": _job(7, 3),
        "Case 5, whose pipeline learns more slowly": _job(5),
    },
)
