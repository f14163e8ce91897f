"""A campaign of faults: each strikes a small job at a random place, and must end in the right report and a recovery.

A case is drawn from its seed alone (`faults.py`): what happens, to whom, when, while what. The job runs on 2 to 4 real
ranks (`struck_job.py`) through `launch`. Then it is started again without the fault. A case is right if

    report     `launch` raised what this fault must raise, naming the rank and the cause; of a damaged file the warning
               names the file; nothing is raised of a mere delay
    recovery   the second run went on from the newest checkpoint that was whole, and ended with the bits of weights and
               moments of a run that nothing disturbed
    remains    no process, no temporary folder, no open descriptor and no half-written checkpoint is left, and every
               checkpoint that the fault has not damaged is whole

A hang ends because `launch` sees that nobody does anything, or that nobody ever can; no verdict depends on a clock.
"""

import contextlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from parallel_lab.runtime import LaunchError, RankFailed, Run, launch
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.resilience.faults import ENOUGH_BYTES, FILES, KINDS, Case, Striker, damage
from parallel_lab.systems.resilience.struck_job import EVERY, run_job
from parallel_lab.trace.units import table

QUIET: dict[str, Any] = {"device": "cpu", "echo": False, "record": False, "timeout": 300.0}  # of each launch
HANGING = ("stopped", "hang")  # what `launch` sees by standing still
AGAIN = "python benchmarks/faults.py --runs 1 --seed"
STILL_S = 2.0  # nobody does anything for so long: then it hangs
PREPARED = 2 * EVERY  # the step up to which a run goes whose checkpoints are to be damaged
GONE_S = 10.0  # patience for a process that was killed to be gone


@dataclass(frozen=True)
class Verdict:
    """How a case ended.

    Attributes:
        case: what was done.
        error: the name of what `launch` raised; "" where the run went on.
        report: its text.
        problems: what is wrong, in words; empty if all is right.
    """

    case: Case
    error: str
    report: str
    problems: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        ended = f"{self.error or 'the run went on'}: {self.report.splitlines()[0] if self.report else 'no report'}"
        found = "right" if self.right else "WRONG: " + "; ".join(self.problems)
        return f"{self.case}\n  {ended}\n  {found}"


@dataclass(frozen=True)
class Campaign:
    """The verdicts of many cases; its text is a table by kind, and what was wrong with how to repeat it."""

    verdicts: tuple[Verdict, ...]

    @property
    def wrong(self) -> list[Verdict]:
        """The cases that did not end as they must."""
        return [each for each in self.verdicts if not each.right]

    def __str__(self) -> str:
        kinds = [kind for kind in KINDS if any(v.case.kind == kind for v in self.verdicts)]
        rows = {kind: [v for v in self.verdicts if v.case.kind == kind] for kind in kinds}
        reported = {kind: sum(v.error != "" for v in rows[kind]) for kind in kinds}
        columns = {
            "fault": [*kinds, "all"],
            "runs": [*(str(len(rows[kind])) for kind in kinds), str(len(self.verdicts))],
            "ended with an error": [*(str(reported[kind]) for kind in kinds), str(sum(reported.values()))],
            "wrong": [
                *(str(sum(not v.right for v in rows[kind])) for kind in kinds),
                str(len(self.wrong)),
            ],
        }
        repeat = [
            f"{each}\n  again: python benchmarks/faults.py --runs 1 --seed {each.case.seed}" for each in self.wrong
        ]
        return "\n".join([table(columns), *repeat])


class Ground:
    """What the cases share: for each number of ranks the end of an undisturbed run, and checkpoints to be damaged.

    A context manager: leaving it removes its folder.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="campaign-")
        self.bits: dict[int, int] = {}

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def checkpoints(self, ranks: int) -> Path:
        """The folder of a run that ended after `PREPARED` steps."""
        where = Path(self.folder.name, f"{ranks}-ranks")
        if not where.is_dir():
            launch(run_job, str(where), None, PREPARED, ranks=ranks, **QUIET)
        return where

    def end(self, ranks: int) -> int:
        """The checksum of weights and moments after a run that nothing disturbed."""
        if ranks not in self.bits:
            with tempfile.TemporaryDirectory(dir=self.folder.name) as where:
                found = {each.bits for each in launch(run_job, where, ranks=ranks, **QUIET).results}
            (self.bits[ranks],) = found
        return self.bits[ranks]


def campaign(seeds: Iterable[int]) -> Campaign:
    """Runs the case of each seed, one after another."""
    with Ground() as ground:
        return Campaign(tuple(strike(Case.draw(seed), ground) for seed in seeds))


def strike(case: Case, ground: Ground) -> Verdict:
    """Runs one case, and judges it."""
    end, prepared = ground.end(case.ranks), ground.checkpoints(case.ranks)
    descriptors = _descriptors()
    with tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        where, marks = Path(scratch, "checkpoints"), Path(scratch, "marks")
        marks.mkdir()
        where.mkdir()
        damaged = None
        if case.resumes:
            shutil.copytree(prepared, where, dirs_exist_ok=True)
        if case.kind in FILES:
            older, newest = folder.complete(where)[-2:]
            damaged = damage(case, newest, older)
        error, run = _struck(case, where, marks)
        report = str(error) if error else run.output[0] if run else ""
        problems = [*_misreported(case, error, report, damaged), *_left(marks, descriptors)]
        saved = folder.complete(where)
        problems += [f"lost: {found}" for found in map(folder.problem, saved) if found and not damaged]
        if error:
            run = launch(run_job, str(where), marks=str(marks), ranks=case.ranks, **QUIET)
            newest = int(saved[-1].name.split("-")[-1]) if saved else 0
            problems += [f"went on from step {o.start}, not {newest}" for o in run.results if o.start != newest]
        problems += [
            f"rank {r} ended with other bits" for r, o in enumerate(run.results if run else ()) if o.bits != end
        ]
        left = [each.name for each in where.iterdir() if each.name.endswith("-partial")]
        problems += [*(f"{name} is left" for name in left), *_left(marks, descriptors)]
    return Verdict(case, type(error).__name__ if error else "", report, tuple(dict.fromkeys(problems)))


def _struck(case: Case, where: Path, marks: Path) -> tuple[LaunchError | None, Run | None]:
    """The run with its fault: what it raised, or what it gave."""
    settings: dict[str, Any] = QUIET | {"still_s": STILL_S if case.kind in HANGING else math.inf}
    settings |= {"memory_bytes": ENOUGH_BYTES if case.kind == "no memory" else None}
    lock = FileLock(where / folder.LOCK) if case.kind == "two savers" else contextlib.nullcontext()
    try:
        with lock:
            strike = Striker(case, str(marks))
            return None, launch(
                run_job, str(where), strike, marks=str(marks), ranks=case.ranks, faults=case.faults, **settings
            )
    except LaunchError as error:
        return error, None


def _misreported(case: Case, error: LaunchError | None, report: str, damaged: Path | None) -> Iterator[str]:
    """What is wrong with the report of a case."""
    kind, name = KINDS[case.kind], type(error).__name__ if error else ""
    if name not in kind.errors:
        yield f"{name or 'nothing'} was raised, expected {' or '.join(each or 'nothing' for each in kind.errors)}"
    if isinstance(error, RankFailed) and kind.cause and error.cause != kind.cause:
        yield f"the cause is {error.cause}, expected {kind.cause}"
    wanted = kind.says.replace("RANK", str(case.rank)).replace("STEP", str(case.step))
    if damaged and not folder.problem(damaged.parent):  # a bit that no record of the file uses
        wanted = ""
    if damaged:
        wanted = wanted.replace("FILE", re.escape(damaged.name))
    if (error or damaged) and not re.search(wanted, report):
        yield f"the report does not say {wanted!r}"


def _left(marks: Path, descriptors: int) -> Iterator[str]:
    """What is left of a launch: processes, its folder, open descriptors."""
    until_s = time.monotonic() + GONE_S
    for pid in (int(each.name.split("-")[1]) for each in marks.iterdir()):
        while (left := _runs(pid)) and time.monotonic() < until_s:
            time.sleep(0.01)
        if left:
            yield f"process {pid} is left"
    for name in os.listdir(tempfile.gettempdir()):
        if name.startswith(f"parallel-lab-{os.getpid()}-"):
            yield f"the folder {name} is left"
    if (more := _descriptors() - descriptors) > 0:
        yield f"{more} descriptors are left open"


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is not only waited for by its parent."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").is_dir()
