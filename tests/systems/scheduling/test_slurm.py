"""A real Slurm on this machine: what its queue shows, what a job of the course prints there, and what is left of it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from parallel_lab import launch
from parallel_lab.hybrid.train import main
from parallel_lab.systems.processes import ServerFailed
from parallel_lab.systems.scheduling import slurm, slurm_run

PATIENCE_S = 120
pytestmark = pytest.mark.timeout(600)
needs_slurm = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "-")
EVERY_KIND = {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"}
ALONE = """
import signal, sys, time
from parallel_lab.systems.scheduling import slurm
signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a job in the background ignores it
with slurm.cluster() as made:
    made.submit("held", "sleep 1000", "--nodes=4")
    while made.queue()[0].state != "RUNNING":
        time.sleep(0.1)
    print("up", flush=True)
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def played():
    """All four scenes, played once."""
    return slurm_run.run_slurm()


@needs_slurm
def test_a_job_of_the_course_trains_under_srun_as_it_does_without(played, tmp_path):
    shown = launch(main, [*slurm_run.SIZE.split(), "--out", str(tmp_path)], ranks=2).output[0]
    assert weights(played.printed["train"]) == weights(shown)
    assert "2 ranks, pp=2" in played.printed["train"]


@needs_slurm
def test_an_honest_limit_is_backfilled_and_a_generous_one_waits(played):
    (short,), (wide,), (long,) = (played.starts(job) for job in ("short", "wide", "long"))
    assert short < wide < long, "submitted in the order wide, long, short"
    assert short < ended(played, "train") <= wide
    waited = {each.line.reason for each in played.changes if each.line.name == "wide" and each.line.state == "PENDING"}
    assert "Resources" in waited


@needs_slurm
def test_a_preempted_job_is_requeued_and_goes_on_from_its_checkpoint(played):
    (urgent,), (first, second) = played.starts("urgent"), played.starts("low")
    assert first < urgent < ended(played, "urgent") <= second
    text = played.printed["low"]
    assert "DUE TO PREEMPTION" in text
    assert int(re.search(r"run 1 starts at step (\d+)", text)[1]) >= 1
    assert text.endswith("run 1 ends\n") and "run 0 ends" not in text


@needs_slurm
def test_a_lost_node_is_noticed_and_its_job_runs_again_on_others(played):
    first, second = played.ran_on("pair")
    assert first == "n[1-2]" and second == "n[2-3]"
    assert played.nodes["loss"] == {"n1": "down*", "n2": "idle", "n3": "idle", "n4": "idle"}
    assert int(re.search(r"run 1 starts at step (\d+)", played.printed["pair"])[1]) >= 1


@needs_slurm
def test_nothing_but_the_holder_starts_on_a_reserved_node_and_nothing_on_a_drained_one(played):
    assert played.nodes["reserve"]["n4"] == "drained"
    assert played.ran_on("inside") == ["n3"] and played.ran_on("outside") == []


@needs_slurm
def test_the_table_shows_every_change_under_its_scene(played):
    lines = played.table().splitlines()
    assert [line for line in lines if line.startswith("--")] == [f"-- {scene}" for scene in played.nodes]
    assert len(lines) == 1 + 4 + len(played.changes) + 4 + 1
    assert any(re.search(r"low +low +PENDING +BeginTime$", line) for line in lines)


@needs_slurm
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_nothing_is_left_when_the_process_ends(how):
    """The folder has a short name: sockets lie below it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", ALONE]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            try:
                assert process.stdout.readline() == "up\n", process.stderr.read()
                until(lambda: not EVERY_KIND - set(below(process).values()), "the daemons and the job are up")
                family = list(below(process))
                process.send_signal(how)
                process.wait(PATIENCE_S)
            finally:
                process.kill()
        until(lambda: not any(each.is_running() for each in family), "daemons and jobs end")
        until(lambda: not os.listdir(folder), "the folder is removed")


@needs_slurm
def test_a_scene_that_does_not_end_shows_how_far_it_came_and_a_job_that_fails_what_it_printed():
    with slurm.cluster() as made:
        stage = slurm_run.Stage(made, slurm_run.SlurmRun(), time.monotonic(), patience_s=0.0)
        stage.scene = "no room"
        made.submit("held", "true", "--hold")
        with pytest.raises(TimeoutError, match=r"did not come to the end of 'no room'(.|\n)*held +low +PENDING"):
            stage.until(stage.is_in("COMPLETED", "held"))
        with pytest.raises(RuntimeError, match=r"sbatch .*held.sh: sbatch: error: invalid partition specified: x"):
            made.submit("held", "true", "--partition=x")
        stage.patience_s = PATIENCE_S
        with pytest.raises(RuntimeError, match=r"job train failed:\n(.|\n)*No such file or directory"):
            slurm_run.backfill(stage, ["/no/such/program"])


def test_where_it_cannot_run_the_reason_stands_in_place_of_the_table(monkeypatch):
    monkeypatch.setattr(slurm.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(slurm.shutil, "which", lambda name, path=None: name)
    assert slurm.missing() == "Slurm's daemons start as root only"
    monkeypatch.setattr(slurm.shutil, "which", lambda name, path=None: None)
    assert slurm.missing().endswith("apt-get install slurm-wlm munge")
    run = slurm_run.run_slurm()
    assert not run.changes and run.table().startswith("Slurm does not run here: Slurm is not installed (no munged,")
    monkeypatch.setattr(slurm_run, "missing", lambda: "")
    monkeypatch.setattr(slurm_run, "cluster", broken)
    assert slurm_run.run_slurm().table() == "Slurm does not run here: its daemons did not come up: munged ended with 1"


def broken():
    raise ServerFailed("munged ended with 1")


def weights(text):
    """The fingerprint of the weights that a training run has printed."""
    found = re.findall(r"weights (\w{16})", text)
    assert found, text
    return found[-1]


def ended(run, job):
    """When the queue first showed a job as done, after its last start."""
    last = run.starts(job)[-1]
    over = ("COMPLETING", "COMPLETED")
    times_s = (each.time_s for each in run.changes if each.line.name == job and each.line.state in over)
    return next(time_s for time_s in times_s if time_s > last)


def below(process):
    """The processes that one has started and that those have started, with the name of each."""
    found = {}
    for each in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[each] = each.name()
    return found


def until(condition, what):
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"{what}: not after {PATIENCE_S} s"
        time.sleep(0.05)
