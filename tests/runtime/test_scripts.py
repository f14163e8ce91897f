"""Plain scripts as kernels: they need no guard, end with all their ranks, and run under torchrun."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil

SCRIPT = """
import torch, torch.distributed as dist
from parallel_lab import launch
def fn():
    x = torch.ones(4) * dist.get_rank()
    dist.all_reduce(x)
    return x[0].item()
print(launch(fn, ranks=3).results, flush=True)
"""

# The fork server stands still: no rank is forked in time, and none has a number that a signal could be sent to.
STOPPED_SERVER = """
import psutil
from parallel_lab import Deadlock
from parallel_lab.runtime.kernel import forkserver, report
server, hang = psutil.Process(forkserver.get().process.pid), report.hang
def resuming(*arguments, **named):
    try:
        return hang(*arguments, **named)
    finally:
        server.resume()
report.hang = resuming
server.suspend()
try:
    launch(int, ranks=2, timeout=0.1)
except Deadlock as error:
    print(error.report)
print(launch(lambda: 7, ranks=2).results, flush=True)
"""

SLEEPS = """
import sys, time
mark = sys.argv[1]
def sleeps():
    open(f"{mark}{dist.get_rank()}", "w").close()
    time.sleep(600)
launch(sleeps, ranks=3)
"""


def test_a_script_without_a_guard_goes_on_after_a_hang_and_takes_its_ranks_along_when_it_is_killed(tmp_path):
    path, mark, out = tmp_path / "train.py", tmp_path / "up", tmp_path / "out"
    path.write_text(SCRIPT + STOPPED_SERVER + SLEEPS)
    with out.open("w") as file:  # in a session of its own: a signal to no process would end this one
        kernel = subprocess.Popen([sys.executable, path, mark], stdout=file, stderr=file, start_new_session=True)
    wait_for(lambda: kernel.poll() is not None or all(os.path.exists(f"{mark}{rank}") for rank in range(3)))
    first, *report, last = out.read_text().splitlines()
    assert (first, last) == ("[3.0, 3.0, 3.0]", "[7, 7]"), report
    assert "rank 1 has not begun" in report
    assert "rank 0 has not begun: the machine is busy, or the timeout is short" in report[-1]
    family = psutil.Process(kernel.pid).children(recursive=True)
    assert len(family) == 4, "a fork server and three ranks"
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith(f"parallel-lab-{kernel.pid}-")]


def wait_for(condition, seconds=100):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_same_function_runs_under_torchrun(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=3", "--standalone", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.replace("\n", "") == "[3.0]" * 3, done.stderr  # lines may run together
