"""The training command as it is really started: by torchrun, on two hosts, by srun; and ranks and hosts that fail."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from parallel_lab import launch
from parallel_lab.hybrid.train import main
from parallel_lab.systems import hosts
from parallel_lab.systems.scheduling import slurm

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
COMMAND = ["-m", "parallel_lab.hybrid.train"]
SMALL = "--layers 2 --heads 2 --width 16 --seq 8 --batch 8 --dropout 0.1 --log-every 1".split()  # noqa: SIM905
PATIENCE_S = 300.0
pytestmark = pytest.mark.timeout(600)  # a rank loads torch for some seconds, and on a busy machine for many


def unbroken(folder, line, ranks):
    """The fingerprint of the weights of a run without a break."""
    shown = launch(main, [*SMALL, "--out", str(folder), *line.split()], ranks=ranks).output[0]
    return weights(shown)


def weights(text):
    found = re.findall(r"weights (\w{16})", text)
    assert found, text
    return found[-1]


@contextmanager
def started(command, log, environment=()):
    """A command whose output goes to a file; it and all that it has started are gone afterwards."""
    quiet = os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment)
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=quiet, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for each in (*family, process):
            if each.is_running() if isinstance(each, psutil.Process) else each.poll() is None:
                each.kill()
        process.wait()


def until(log, pattern, process):
    """Waits until the output has the pattern."""
    ends_s = time.monotonic() + PATIENCE_S
    while not re.search(pattern, text := log.read_text()):
        assert process.poll() is None and time.monotonic() < ends_s, text
        time.sleep(0.05)


def ended(process, log):
    """What the command has printed, once it has ended, and its exit code."""
    code = process.wait(PATIENCE_S)
    return log.read_text(), code


def test_a_killed_rank_and_ctrl_c_change_no_bit_of_the_result(tmp_path):
    """A rank is killed and torchrun starts all again; then Ctrl-C; then the same command goes on to the end."""
    line = "--pp 2 --steps 200 --save-every 7"
    expected, out, log = unbroken(tmp_path / "a", line, 2), tmp_path / "b", tmp_path / "log"
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1", *COMMAND, *SMALL, *line.split()]
    command += ["--out", str(out)]
    with started(command, log) as torchrun:
        until(log, r"step 10 of 200", torchrun)
        victim = next(each for each in psutil.Process(torchrun.pid).children() if each.environ().get("RANK") == "1")
        victim.kill()
        until(log, r"going on from step (\d+)[^$]*step \d*[05] of 200", torchrun)
        torchrun.send_signal(signal.SIGINT)
        text, _ = ended(torchrun, log)
    stopped = int(re.search(r"stopped after step (\d+), saved in .*; the same command goes on", text)[1])
    assert 7 <= int(re.search(r"going on from step (\d+)", text)[1]) < stopped < 200
    assert text.count("lost another rank") <= 1, "torchrun may end a rank before it can say so"
    with started(command, log) as torchrun:
        text, code = ended(torchrun, log)
    assert code == 0, text
    assert f"going on from step {stopped}" in text and weights(text) == expected


def test_two_hosts(tmp_path):
    """Two namespaces, of which each has a rank, an address and nothing else of the network."""
    if why := hosts.missing():
        pytest.skip(why)
    line = "--dp 2 --steps 3"
    with hosts.two_hosts() as both:
        first, second = both
        start = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=two-hosts"]
        start += [f"--rdzv-endpoint={first.address}:29400"]
        rest = [*COMMAND, *SMALL, *line.split(), "--out", str(tmp_path / "b")]
        # torchrun looks up its own address by the host's name, which both have in common here; so it is told.
        own = [[f"--local-addr={host.address}", f"--rdzv-conf=is_host={int(host is first)}"] for host in both]
        logs = [tmp_path / "first", tmp_path / "second"]
        with (
            started(first.inside(*start, *own[0], *rest), logs[0]) as one,
            started(second.inside(*start, *own[1], *rest), logs[1]) as other,
        ):
            (shown, code), (silent, second_code) = ended(one, logs[0]), ended(other, logs[1])
        assert (code, second_code) == (0, 0), shown + silent
        assert "step 3 of 3" in shown + silent
        told = weights(shown + silent)
        command = [sys.executable, *COMMAND, "--rendezvous-timeout", "2"]
        place = {
            "RANK": "1",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": first.address,
            "MASTER_PORT": "29400",
        }
        with started(second.inside(*command), logs[1], place) as lonely:
            text, code = ended(lonely, logs[1])
    assert code == 1 and f"rank 1: {first.address}:29400 does not answer within 2 s. Is rank 0 running there" in text
    assert "Traceback" not in text
    assert told == unbroken(tmp_path / "a", line, 2)


def test_slurm(tmp_path):
    """Two nodes of one machine, each a daemon; `srun` starts a rank on each and tells it where it stands."""
    if why := slurm.missing():
        pytest.skip(why)
    line, host = "--pp 2 --steps 3", socket.gethostname()  # the ranks meet at the first node by its name
    with slurm.cluster((host, f"{host}-2")) as made:
        command = ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", sys.executable, *COMMAND, *SMALL]
        log = tmp_path / "log"
        with started([*command, *line.split(), "--out", str(tmp_path / "b")], log, made.environment) as srun:
            text, code = ended(srun, log)
        assert code == 0, text
        told = weights(text)
        with started([*command, "--pp", "3"], log, made.environment) as srun:
            text, code = ended(srun, log)
    assert code and text.count("pp=3 x cp=1 x tp=1 = 3 does not divide the 2 ranks that there are") == 1, text
    assert told == unbroken(tmp_path / "a", line, 2)
