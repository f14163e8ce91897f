"""Runs every test in stages, the fast ones first, and stops at the first stage that fails.

Run by `make test`. The last line counts what passed, failed and was skipped, over all stages.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
REPORTS = ROOT / "build" / "reports"
NOTHING_COLLECTED = 5

UNIT = ("plan", "trace", "network", "simulate", "model", "view", "cli", "tools", "test_packaging.py")
EXERCISES = ("course", "grading", "exercises")
NOTEBOOKS, BROWSER = ("notebooks",), ("browser",)
# Each notebook keeps its cells in order in one worker. Warnings of other packages are not ours to raise.
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", "-n", "2", "--dist", "loadscope"]
NBVAL += ["-o", "filterwarnings=default", "notebooks"]


class Stage(NamedTuple):
    """One heading of the run: a name, and either a command or the arguments of pytest."""

    name: str
    command: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()


def among(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these folders and files under tests/ that exist."""
    return tuple(f"tests/{name}" for name in names if (ROOT / "tests" / name).exists())


def stages() -> list[Stage]:
    """What is run, in order. Whatever no other stage names belongs to the ranks, so that no folder is forgotten."""
    named = UNIT + EXERCISES + NOTEBOOKS + BROWSER
    others = tuple(f"--ignore=tests/{name}" for name in named)
    found = [
        Stage("style", ("ruff", "check", "--quiet")),
        Stage("format", ("ruff", "format", "--check", "--quiet")),
        Stage("direction of imports", ("lint-imports",)),
        Stage("unit", pytest=among(UNIT)),
        Stage("ranks", pytest=("tests", *others)),
        Stage("exercises", pytest=among(EXERCISES)),
        Stage("notebooks as committed", pytest=among(NOTEBOOKS)),
    ]
    if any((ROOT / "notebooks").glob("*.ipynb")):
        found.append(Stage("notebooks run again", pytest=tuple(NBVAL)))
    found.append(Stage("browser", pytest=among(BROWSER)))
    return [stage for stage in found if stage.command or stage.pytest]


def run(stage: Stage, report: Path) -> int:
    """Runs a stage with its output passed through; returns its exit code."""
    if stage.command:
        line = [str(BIN / stage.command[0]), *stage.command[1:]]
    else:
        line = [sys.executable, "-m", "pytest", "-q", "-rs", f"--junitxml={report}", *stage.pytest]
    code = subprocess.run(line, cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    return 0 if stage.pytest and code == NOTHING_COLLECTED else code


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


def all_stages() -> int:
    """Runs the stages until one fails; prints the sums; returns the exit code."""
    began_s, totals, code = time.monotonic(), Counter(), 0
    REPORTS.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(stages(), 1):
        report = REPORTS / f"{number}.xml"
        report.unlink(missing_ok=True)
        print(f"\n== {stage.name} ({time.monotonic() - began_s:.0f} s so far)", flush=True)
        code = run(stage, report)
        counts = count(report) if stage.pytest else Counter()
        if code and not counts["failed"]:
            counts["failed"] += 1  # a check that is no test, or a stage that ended before it could report
        totals += counts
        if code:
            print(f"\nstopped: the stage '{stage.name}' failed", flush=True)
            break
    seconds = time.monotonic() - began_s
    print(f"\n{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped in {seconds:.0f} s")
    return code


def main() -> int:
    """The command; returns the exit code."""
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        return all_stages()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
