"""The run of all that needs CUDA: its table, a section that fails, one that hangs, and the bundle's run.sh."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "gpu_run.py"))
Section, run_all, report = TOOL["Section"], TOOL["run_all"], TOOL["report"]


def test_a_section_that_fails_or_hangs_does_not_stop_the_others(tmp_path):
    found = [
        Section("raises", ("-c", "print('FAILED test_x - off by 3'); raise SystemExit('1 failed')"), 60),
        Section("hangs", ("-c", "import time; print('half way', flush=True); time.sleep(600)"), 3, beside=True),
        Section("prints", ("-c", "print('first'); print('ratio 0.9 | 2 ranks')"), 60, beside=True),
    ]
    rows = run_all(found, 120, tmp_path / "logs")
    raised, hung, printed = (outcome for _, outcome in rows)
    assert (raised.passed, raised.result, raised.failures) == (False, "1 failed", ("FAILED test_x - off by 3",))
    assert not hung.passed and hung.result.startswith("stopped after 3 s")
    assert printed.passed
    table = report("On a machine.", rows, "").splitlines()
    assert table[4:6] == ["| section | passed | seconds | result |", "|---|---|---|---|"]
    assert table[6].startswith("| raises | **no** | ") and table[6].endswith(" | 1 failed |")
    assert table[8].startswith("| prints | yes | ") and table[8].endswith(r" | ratio 0.9 \| 2 ranks |")
    assert "FAILED test_x - off by 3" in table


def test_what_no_time_is_left_for_is_said(tmp_path):
    ((_, outcome),) = run_all([Section("late", ("-c", ""), 60)], 0.0, tmp_path)
    assert not outcome.passed and outcome.result == "not run: no time was left"


def test_without_cuda_the_table_says_so():
    assert "Nothing ran on CUDA" in TOOL["machine"](False)


def test_every_path_of_a_section_is_there():
    for section in TOOL["sections"](True):
        for argument in section.arguments:
            assert "/" not in argument or "\n" in argument or (ROOT / argument).exists(), argument


def test_run_sh_of_the_bundle_shows_its_options(tmp_path):
    (tmp_path / "run.sh").write_bytes((ROOT / "tools" / "gpu_bundle_run.sh").read_bytes())
    (tmp_path / "parallel-lab").symlink_to(ROOT)
    (tmp_path / "site").mkdir()
    command = ["sh", str(tmp_path / "run.sh"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable})
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr


def test_cells_of_a_notebook_run_as_a_script(tmp_path):
    """A cell that fails is named, those behind it run, and tensors of a rank are made on its device."""
    cells = [
        ("start", "import torch; from parallel_lab import launch", []),
        ("given", "launch(lambda x: (x + torch.ones(2)).sum(), torch.ones(2), ranks=1, device='cpu')[0].item()", []),
        ("broken", "1 / 0", []),
        ("meant", "1 / 0", ["raises-exception"]),
        ("last", "print('still here', _)", []),
    ]
    notebook = {
        "cells": [
            {"cell_type": "code", "id": name, "source": [text], "metadata": {"tags": tags}}
            for name, text, tags in cells
        ]
    }
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook))
    command = [sys.executable, str(ROOT / "tools" / "run_cells.py"), str(path), "--on-gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    *_, last = done.stdout.splitlines()
    assert done.returncode == 1 and "still here 4.0" in done.stdout, done.stderr
    assert last == "4 of 5 cells ran; failed: broken (ZeroDivisionError: division by zero)"
