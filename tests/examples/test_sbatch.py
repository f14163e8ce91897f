"""The batch script is accepted by a real Slurm, trains there on two nodes, and goes on after it was put back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_lab.systems.processes import wait_for
from parallel_lab.systems.scheduling import slurm

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "train.sbatch"
pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "-")


def test_is_put_back_by_the_signal_and_goes_on_from_its_save(tmp_path):
    (port,) = slurm.free_ports(1)
    own = {"RANKS_PER_NODE": "1", "STEPS": "100000", "FOLDER": f"{tmp_path}/run", "MEET_AT": f"127.0.0.1:{port}"}
    own |= {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    log = tmp_path / "log"
    with slurm.cluster(("n1", "n2")) as made:
        path = os.pathsep.join([str(Path(sys.executable).parent), made.environment["PATH"]])

        def call(*command):
            environment = {**made.environment, **own, "PATH": path}
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout + done.stderr

        def saw(text):
            return lambda: log.exists() and re.search(text, log.read_text(errors="replace"))

        assert re.search(r"Job \d+ to start at", call("sbatch", "--test-only", SCRIPT))
        job = call("sbatch", "--parsable", f"--output={log}", SCRIPT).strip()
        wait_for(saw(r"step 2\d loss"), made.daemons, 120)
        call("scancel", "--signal=USR1", "--batch", job)
        wait_for(saw(r"run 1 on (.*\n)+?life 0 world 2 step \d+ loss"), made.daemons, 120)
        call("scancel", job)
    before, after = log.read_text().split("run 1 on ")
    assert before.startswith("run 0 on n[1-2]") and " world 2 step 0 loss" in before
    first = int(re.findall(r"world 2 step (\d+) loss", after)[0])
    assert first >= 20 and first % 5 == 0, "it goes on from the last save"
