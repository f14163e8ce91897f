"""The ward: `open_case(9)` runs a broken job on real ranks and shows its chart; `diagnose` judges who finds the cause.

A mended job is judged by running it, on the case's own data and on fresh ones, and with other numbers of ranks where
the case allows it. The feedback says what is still wrong with the job, and where a named cause would show; it names
neither the cause nor the cure.
"""

import inspect
import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.causes import Cause, cause_named
from parallel_lab.clinic.chart import Chart, Unhealthy
from parallel_lab.clinic.instruments import work
from parallel_lab.clinic.job import Case
from parallel_lab.runtime import LaunchError, RankFailed, launch
from parallel_lab.trace import Trace

SEED = 23  # of the run that everybody sees
STILL_S = 8.0  # ranks are ended that for so long neither compute nor call anything
LONGEST_S = 900.0  # nothing comes near
MEMORY_BYTES = 2 * 2**30  # that a rank may allocate
WIDTH = 100


def case_of(number: int) -> Case:
    """The case with this number.

    Raises:
        ValueError: there is none.
    """
    if type(number) is not int or number not in CASES:
        raise ValueError(f"there is no case {number!r}: the clinic has {', '.join(map(str, CASES))}")
    return CASES[number]


def run_case(case: Case, job: Callable | None = None, *, ranks: int | None = None, seed: int = SEED) -> Chart:
    """The chart of one run of `job`, by default the broken one, on the machine of the case."""
    ranks = ranks or case.ranks
    machine: dict[str, Any] = {"ranks": ranks, "link": case.link, "faults": case.faults, "device": "cpu"}
    limits: dict[str, Any] = {"timeout": LONGEST_S, "still_s": STILL_S, "memory_bytes": MEMORY_BYTES, "echo": False}
    try:
        run = launch(work, job or case.job, case.given, seed, **machine, **limits)
    except LaunchError as error:
        if isinstance(error, RankFailed) and error.cause == "NotImplementedError":
            return Chart(seed, [], Trace(ranks, ()), error.output, "the job is not written yet")
        return Chart(seed, [], Trace(ranks, ()), error.output, f"{type(error).__name__}: {error.report}")
    return Chart.of(seed, run.results, run.trace, run.output)


@dataclass(frozen=True)
class Opened:
    """A case with the chart of a run; it shows itself, and `draw(...)` shows its timeline."""

    case: Case
    chart: Chart

    @property
    def trace(self) -> Trace:
        """What was recorded."""
        return self.chart.trace

    def __str__(self) -> str:
        case = self.case
        parts = [
            f"Case {case.number}: {case.title}",
            textwrap.fill(case.complaint, WIDTH),
            f"The program, on {self.chart.ranks} ranks:",
            inspect.getsource(case.job).rstrip(),
            str(self.chart),
            case.notes(self.chart.ranks, self.chart.seed),
        ]
        return "\n\n".join(filter(None, parts))

    __repr__ = __str__


def open_case(number: int, job: Callable | None = None, *, seed: int = SEED) -> Opened:
    """Runs case `number` on real ranks and shows complaint, program, log, bytes and waits, or why it hangs.

    Args:
        number: which case.
        job: a version of yours; by default the broken program of the case.
        seed: what its data are drawn from.

    Raises:
        ValueError: there is no such case.
        TypeError: `job` is no function, or cannot be copied to the ranks.
    """
    case = case_of(number)
    return Opened(case, run_case(case, job, seed=seed))


@dataclass(frozen=True)
class Diagnosis:
    """What came of a diagnosis: whether it is right, and sentences that say why."""

    number: int
    named: bool  # whether the named cause is the hidden one
    healthy: bool  # whether the mended job does what is asked
    said: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the cause is named and the job mended."""
        return self.named and self.healthy

    def __str__(self) -> str:
        head = f"Case {self.number}: {'solved' if self.passed else 'not yet'}."
        return "\n".join([head, *(textwrap.fill(line, WIDTH) for line in self.said)])

    __repr__ = __str__


def diagnose(number: int, cause: str, job: Callable, *, seed: int | None = None) -> Diagnosis:
    """Judges a diagnosis: the cause by its name (`plab clinic causes` lists them), the mended job by running it.

    Raises:
        ValueError: there is no such case, or no cause of this name; the nearest names are given.
    """
    case, named = case_of(number), cause_named(cause)
    found = named.name == case.cause
    said = [_on_cause(case, named)]
    try:
        examine(case, job, int.from_bytes(os.urandom(2), "big") if seed is None else seed)
    except Unhealthy as wrong:
        said += ["The job is not mended: " + wrong.seen + ".", *filter(None, [wrong.advice])]
        return Diagnosis(number, found, False, tuple(said))
    said.append("The job does what is asked of it.")
    if found:
        said += ["The evidence: " + case.evidence, "The cure: " + named.cure]
    return Diagnosis(number, found, True, tuple(said))


def _on_cause(case: Case, named: Cause) -> str:
    if named.name == case.cause:
        return f"The cause is right: {named.name}."
    return f"The cause is not {named.name}: that would show so: {named.signature} Compare with the chart."


def examine(case: Case, job: Callable, seed: int) -> None:
    """Runs a mended job and holds its charts against the demands of the case.

    Raises:
        Unhealthy: it does not stand up to one of them, came to no end, or is no function.
    """
    if not callable(job):
        raise Unhealthy(f"the mended job is {job!r}", "Hand in a function with the arguments of the broken program.")
    for ranks, drawn in _trials(case, seed):
        try:
            chart = run_case(case, job, ranks=ranks, seed=drawn)
        except TypeError as error:  # it cannot be copied to the ranks
            raise Unhealthy(str(error)) from None
        judge(case, chart)


def _trials(case: Case, seed: int) -> Iterator[tuple[int, int]]:
    yield case.ranks, SEED
    yield case.ranks, seed
    yield from ((ranks, seed) for ranks in case.also)


def judge(case: Case, chart: Chart) -> None:
    """Holds one chart against the demands of the case.

    Raises:
        Unhealthy: it does not stand up to one of them; the message begins with the number of ranks.
    """
    at = f"on {chart.ranks} ranks, seed {chart.seed}"
    if chart.error:
        raise Unhealthy(f"{at}: the job came to no end. {chart.error}")
    try:
        for rank in range(chart.ranks):
            chart.state(rank)
        for demand in case.demands:
            demand(case, chart)
    except Unhealthy as wrong:
        raise Unhealthy(f"{at}: {wrong.seen}", wrong.advice) from None
