"""The runner: which room a test belongs to, what is over its budget, which lines ran, and what ONLY takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import budgets, matrix, run_tests

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("nodeid", "room"),
    [
        ("tests/data_parallel/test_ddp.py::test_a[3]", "data_parallel"),
        ("tests/test_packaging.py::test_a", "test_packaging"),
        ("tests/exercises/test_03_bucketed_ddp_cheats.py::test_a", "exercise bucketed_ddp"),
        ("tests/exercises/test_all.py::test_solution[ring_all_reduce]", "exercise ring_all_reduce"),
        ("tests/exercises/test_parameter_server.py::test_a", "exercise parameter_server"),
        ("tests/parameter_server/test_a.py::test_a", "parameter_server"),
        ("tests/systems/resilience/test_a.py::test_a", "systems/resilience"),
        ("notebooks/03_data_parallel.ipynb::Cell 4", "03_data_parallel"),
    ],
)
def test_a_test_belongs_to_a_room(nodeid, room):
    assert budgets.room_of(nodeid) == room


def test_a_room_over_budget_and_slack_is_marked_and_fails():
    used = {"collectives": 40 * budgets.SLACK + 1, "synchronization": 41.0, "exercise ring_shift": 1.0}
    spent = used | {budgets.BETWEEN: 1000.0}
    assert budgets.over(spent) == ["collectives"]
    marks = {line[:36].strip(): line for line in budgets.table(spent).splitlines()}
    assert "OVER" in marks["collectives"] and "slack" in marks["synchronization"]
    assert "  6" in marks["exercise ring_shift"]


def test_budgets_stretch_on_a_slow_machine_and_shrink_on_none():
    quick, usual, slow = ([times * budgets.YARDSTICK_S] for times in (0.5, 1.0, 1.5))
    assert [budgets.slowness(each) for each in (quick, usual, slow, [])] == pytest.approx([1.0, 1.0, 1.5, 1.0])
    spent = {"collectives": 40 * budgets.SLACK * 1.4}
    assert budgets.over(spent) == ["collectives"] and budgets.over(spent, 1.5) == []
    assert "1.50 times" in budgets.table(spent, 1.5) and "times" not in budgets.table(spent)


def test_only_finds_rooms_exercises_and_notebooks_and_lists_them_where_it_does_not():
    rooms, graded, shown = run_tests.only(["pipeline", "ring_shift", "03_data_parallel"])
    assert rooms.pytest[0] == "tests/pipeline" and "ring_shift" in graded.pytest
    assert shown.pytest[0] == "notebooks/03_data_parallel.ipynb"
    with pytest.raises(run_tests.UnknownRoom, match=r"(?s)ONLY=pipelin: .*pipeline.*ring_shift.*03_data_parallel"):
        run_tests.only(["pipelin"])


def test_no_folder_of_tests_is_forgotten():
    named = {argument for stage in run_tests.everything() for argument in stage.pytest}
    assert "tests" in named
    ignored = {argument.removeprefix("--ignore=") for argument in named if argument.startswith("--ignore=")}
    assert {name for name in ignored if (ROOT / name).exists()} <= named


@pytest.mark.parametrize("code", [0, 3])
def test_what_runs_beside_a_stage_can_fail_it_and_is_then_heard(tmp_path, capfd, code):
    beside = ("python", "-c", f"print('said'); raise SystemExit({code})")
    stage = run_tests.Stage("both", command=("python", "-c", ""), beside=beside)
    assert run_tests.run(stage, tmp_path / "report.xml") == code
    assert ("said" in capfd.readouterr().out) == bool(code)


MEASURED = """
import os
from pathlib import Path
from parallel_lab import launch
from parallel_lab.pipeline import one_f_one_b

def burn():
    import time
    end = time.process_time() + 0.5
    while time.process_time() < end:
        one_f_one_b(2, 2)

def test_ranks():
    launch(burn, ranks=2)
    one_f_one_b(2, 2)
    (Path(__file__).parent / "pid").write_text(str(os.getpid()))
"""
KILLED = """
import os

def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_seconds_and_lines_of_ranks_count(tmp_path, workers):
    """Also of a worker that is killed because it is slow to end."""
    (tmp_path / "test_burn.py").write_text(MEASURED)
    (tmp_path / "conftest.py").write_text(KILLED)
    spent, lines = tmp_path / "spent.json", tmp_path / "lines"
    lines.mkdir()
    wanted = {run_tests.FOLDER: str(lines), run_tests.ROOMS: str(ROOT / "parallel_lab" / "pipeline")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tools.measure", f"--spent={spent}", "-n", workers]
    command += ["--import-mode=prepend", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}"]
    command += [str(tmp_path / "test_burn.py")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | wanted, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(spent.read_text())
    assert measured["spent"]["test_burn"] > 1.0, "two ranks take half a second each"
    assert measured["yardsticks"] and all(0.0 < seconds < 1.0 for seconds in measured["yardsticks"])
    assert (lines / f"{(tmp_path / 'pid').read_text()}.jsonl").exists()
    ran = [json.loads(text) for file in lines.iterdir() for text in file.read_text().splitlines()]
    assert len(ran) >= 2 and any(name.endswith("pipeline/one_f_one_b.py") for each in ran for name in each)


def test_lines_become_a_percentage_of_each_technique(tmp_path):
    room, lines = tmp_path / "pipeline", tmp_path / "lines"
    room.mkdir()
    lines.mkdir()
    (room / "a.py").write_text('"""Head."""\n\nx = 1\nif x > 1:\n    x = 2\n    x = 3\n')
    (lines / "1.jsonl").write_text(json.dumps({str(room / "a.py"): [3, 4]}) + "\n")
    assert run_tests.covered(lines, tmp_path) == {"pipeline": 50.0}


def test_the_matrix_takes_the_lowest_torch_and_the_pins_beside_it():
    assert matrix.oldest('"torch>=2.11"') == "2.11.0"
    locks = ["# head\n-c cuda.lock\nnumpy==2.0\ntorch==2.13.0\n", "-r requirements.lock\npytest==9\n"]
    assert matrix.unpinned(locks, "2.11.0") == ["torch==2.11.0", "numpy==2.0", "pytest==9"]
