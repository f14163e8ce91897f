"""The benchmark of the training command lives on the command's insides: it still runs, and both sides lose alike."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_runs_on_the_cpu():
    command = [sys.executable, ROOT / "benchmarks" / "train.py", "--small", "--turns", "2", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"differ by (\S+) at most", done.stdout)[1]) < 1e-5
