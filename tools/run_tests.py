"""Runs every test in stages, the fast ones first, and stops at the first stage that fails.

Run by `make test`; `make test ONLY="data_parallel ring_shift"` runs rooms, exercises and notebooks of these names,
`make quick` the style, the units and the tests over all techniques. Processor seconds by room stand at the end, and of
each technique how many of its lines ran. A room that is over its budget or untested fails; the numbers stand in
`budgets.py`. The last line counts what passed, failed and was skipped, over all stages.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coverage import Coverage

from parallel_lab.course.progress import VARIABLE
from parallel_lab.course.under_way import QUIET
from tools.budgets import COVERED_PERCENT, TECHNIQUES, exercises, notebooks, over, slowness, table
from tools.in_ranks.sitecustomize import FOLDER, ROOMS

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
REPORTS = ROOT / "build" / "reports"
LINES = REPORTS / "lines"
NOTHING_COLLECTED = 5

UNIT = ("plan", "trace", "network", "simulate", "model", "view", "cli", "tools", "test_packaging.py")
EXERCISES = ("course", "grading", "exercises")
NOTEBOOKS, BROWSER = ("notebooks",), ("browser",)
TWO = ("-n", "2", "--dist", "worksteal", "--ranks")
# Each notebook keeps its cells in order in one worker. Warnings of other packages are not ours to raise.
NBVAL = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", "-n", "2", "--dist", "loadscope")
NBVAL += ("-o", "filterwarnings=default")
SPELLED = ("parallel_lab", "tools", "tests", "benchmarks", "examples", "notebooks", "solutions")
SPELLED += ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")


class Stage(NamedTuple):
    """One heading of the run: a name, a command or the arguments of pytest, and a command that runs beside these."""

    name: str
    command: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


class UnknownRoom(Exception):
    """A name that is no room, no exercise and no notebook; the message lists those that are."""


def among(names: Sequence[str]) -> tuple[str, ...]:
    """Those of these folders and files under tests/ that exist."""
    return tuple(f"tests/{name}" for name in names if (ROOT / "tests" / name).exists())


def checks() -> list[Stage]:
    """What reads the files and runs none of them. ruff reads notebooks, solutions and examples too."""
    return [
        Stage("style", ("ruff", "check", "--quiet")),
        Stage("format", ("ruff", "format", "--check", "--quiet")),
        Stage("spelling", ("codespell", *(name for name in SPELLED if (ROOT / name).exists()))),
        Stage("docstrings", ("python", "tools/docstrings.py")),
        Stage("direction of imports", ("lint-imports",)),
    ]


def units() -> Stage:
    """The tests without ranks, or with few; pyright takes half a minute of one core meanwhile."""
    return Stage("unit and types", pytest=(*among(UNIT), "-n", "2", "--dist", "worksteal"), beside=("pyright",))


def everything() -> list[Stage]:
    """What is run, in order. Whatever no other stage names belongs to the ranks, so that no folder is forgotten."""
    others = tuple(f"--ignore=tests/{name}" for name in UNIT + EXERCISES + NOTEBOOKS + BROWSER)
    return [
        *checks(),
        units(),
        Stage("ranks", pytest=("tests", *others, *TWO)),
        Stage("exercises", pytest=(*among(EXERCISES), *TWO)),
        Stage("notebooks as committed", pytest=among(NOTEBOOKS)),
        Stage("notebooks run again", pytest=("notebooks", *NBVAL)),
        Stage("browser", pytest=among(BROWSER)),
    ]


def quick() -> list[Stage]:
    """What an inner loop can wait for."""
    return [*checks(), units(), Stage("techniques", pytest=(*among(["techniques"]), *TWO))]


def rooms() -> list[str]:
    """The folders below tests/, and those in tests/systems, a room each."""
    folders = [path for depth in ("*", "systems/*") for path in (ROOT / "tests").glob(depth) if path.is_dir()]
    names = [path.relative_to(ROOT / "tests").as_posix() for path in folders if path.name[0] not in "._"]
    return sorted(name for name in names if name != "systems")


def only(names: Sequence[str]) -> list[Stage]:
    """The stages for these rooms, exercises and notebooks.

    Raises:
        UnknownRoom: a name is none of these.
    """
    known = {"a room": rooms(), "an exercise": exercises(), "a notebook": notebooks()}
    if wrong := [name for name in names if not any(name in each for each in known.values())]:
        lists = "\n".join(f"  {kind}: {' '.join(sorted(each))}" for kind, each in known.items())
        raise UnknownRoom(f"ONLY={' '.join(wrong)}: there is no such name. It is one of\n{lists}")
    folders = [name for name in names if name in rooms()]
    graded = [name for name in names if name in exercises() and name not in folders]
    shown = [f"notebooks/{name}.ipynb" for name in names if name in notebooks()]
    found = [Stage("rooms", pytest=(*among(folders), *TWO))] if folders else []
    if graded:
        found.append(Stage("exercises", pytest=("tests/exercises", "-k", " or ".join(graded), *TWO)))
    return [*found, Stage("notebooks run again", pytest=(*shown, *NBVAL))] if shown else found


def run(stage: Stage, report: Path) -> int:
    """Runs a stage with its output passed through; returns its exit code."""
    # Two workers use two cores; the models of tests are so small that more threads would wait longer than they compute.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each rank would compile the techniques anew
    if stage.command:
        line = [str(BIN / stage.command[0]), *stage.command[1:]]
    else:
        line = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "tools.measure"]
        line += [f"--spent={report.with_suffix('.json')}", f"--junitxml={report}", *stage.pytest]
        environment[VARIABLE] = str(REPORTS / "learner" / "progress.json")  # what notebooks record is not his
        environment |= {QUIET: "1"} if "--nbval" in stage.pytest else {}
        if stage.name in ("ranks", "rooms"):
            measured = (str(ROOT / "parallel_lab" / room) for room in TECHNIQUES)
            environment |= {FOLDER: str(LINES), ROOMS: os.pathsep.join(measured)}
    with beside(stage.beside) as other:
        code = subprocess.run(line, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode
    return other.returncode or (0 if stage.pytest and code == NOTHING_COLLECTED else code)


@contextlib.contextmanager
def beside(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Runs a command while the block runs, or nothing for no words; shows at the end what it says if it fails."""
    line = [str(BIN / command[0]), *command[1:]] if command else ["true"]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as other:
        yield other
        said, _ = other.communicate()
    if other.returncode:
        print(said)


def count(report: Path) -> Counter:
    """How many tests passed, failed (errors too) and were skipped, as pytest's report has it."""
    counts: Counter = Counter()
    if not report.exists():
        return counts
    for suite in ET.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped, total = int(suite.get("skipped", 0)), int(suite.get("tests", 0))
        counts.update(passed=total - failed - skipped, failed=failed, skipped=skipped)
    return counts


def covered(lines: Path, package: Path) -> dict[str, float]:
    """The percentage of each technique's lines that ran, as the ranks and pytest noted them in `lines`."""
    coverage, ran = Coverage(data_file=None, config_file=False), Counter()
    for file in lines.glob("*.jsonl"):
        for text in file.read_text(encoding="utf-8").splitlines():
            coverage.get_data().add_lines(json.loads(text))
    statements: Counter[str] = Counter()
    for room in TECHNIQUES:
        for path in (package / room).rglob("*.py"):
            _, wanted, _, missing, _ = coverage.analysis2(str(path))
            statements[room] += len(wanted)
            ran[room] += len(wanted) - len(missing)
    return {room: 100 * ran[room] / total for room, total in statements.items() if ran[room]}


def summary(ran: Sequence[str]) -> list[str]:
    """Prints seconds and lines by room; returns what is wrong with them. `ran` names the rooms that ran whole."""
    spent: Counter[str] = Counter()
    yardsticks: list[float] = []
    for file in REPORTS.glob("*.json"):
        measured = json.loads(file.read_text(encoding="utf-8"))
        spent.update(measured["spent"])
        yardsticks += measured["yardsticks"]
    slow = slowness(yardsticks)
    wrong = [f"{room} is over its budget of processor time" for room in over(spent, slow)]
    if spent:
        print(f"\n{table(spent, slow)}")
    for room, percent in covered(LINES, ROOT / "parallel_lab").items():
        if room in ran:
            print(f"{room:<36}{percent:7.1f} % of its lines ran")
            if percent < COVERED_PERCENT:
                wrong.append(f"{room}: fewer than {COVERED_PERCENT:.0f} % of its lines ran")
    return wrong


def run_all(stages: Sequence[Stage], ran: Sequence[str]) -> int:
    """Runs the stages until one fails; prints the sums; returns the exit code."""
    began_s, totals, code = time.monotonic(), Counter(), 0
    shutil.rmtree(REPORTS, ignore_errors=True)
    LINES.mkdir(parents=True)
    for number, stage in enumerate(stages, 1):
        report = REPORTS / f"{number}.xml"
        print(f"\n== {stage.name} ({time.monotonic() - began_s:.0f} s so far)", flush=True)
        code = run(stage, report)
        counts = count(report) if stage.pytest else Counter()
        if code and not counts["failed"]:
            counts["failed"] += 1  # a check that is no test, or a stage that ended before it could report
        totals += counts
        if code:
            print(f"\nstopped: the stage '{stage.name}' failed", flush=True)
            break
    wrong = summary(() if code else ran)
    print("".join(f"\nFAILED: {line}" for line in wrong))
    totals["failed"] += len(wrong)
    seconds = time.monotonic() - began_s
    print(f"\n{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped in {seconds:.0f} s")
    return code or bool(wrong)


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the tests.")
    parser.add_argument("--quick", action="store_true", help="style, units and one test over all techniques")
    parser.add_argument("only", nargs="*", help="rooms, exercises or notebooks; all where none is named")
    chosen = parser.parse_args()
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        if chosen.quick:
            return run_all(quick(), ())
        return run_all(only(chosen.only) if chosen.only else everything(), chosen.only or TECHNIQUES)
    except UnknownRoom as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
