"""Four scenes on a real Slurm of four nodes, and what its queue shows meanwhile; the daemons are those of `slurm`.

1. *backfill*: a job of the course trains on two nodes under `srun`. A wide job, which needs all nodes, waits for them.
   Two small jobs ask for the same four GPUs. The one with an honest limit of a minute is run in the gap. The one with a
   limit of an hour could delay the wide job, and waits behind it.
2. *preempt*: a job of the partition `high` needs the nodes of one of `low`, which is killed, requeued, and run again.
3. *loss*: a node ends without a word. The controller notices, and runs the node's job again on others.
4. *reserve*: a node is drained, another one reserved. Nothing else starts there.

The jobs that are requeued count steps and keep the count in a file, which is their checkpoint. All jobs but one hold
their nodes until a file lets them go: the brief ones once the queue was seen to run them, the others when their scene
is played. So a slow machine shows the same order.
"""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from parallel_lab.systems.processes import ServerFailed
from parallel_lab.systems.scheduling.slurm import Cluster, Queued, cluster, missing

POLL_S, PATIENCE_S = 0.2, 150.0
SIZE = "--layers 2 --heads 2 --width 16 --seq 8 --batch 8 --log-every 1 --pp 2 --steps 3"
TRAIN = (sys.executable, "-m", "parallel_lab.hybrid.train", *SIZE.split())
HOLD = "until [ -e {gate} ]; do sleep 0.1; done"
COUNT = """step=$(cat {file} 2>/dev/null || echo 0)
echo "run ${{SLURM_RESTART_COUNT:-0}} starts at step $step"
until [ -e {gate} ]; do
    sleep 0.1
    step=$((step + 1))
    echo $step > {file}.new && mv {file}.new {file}
done
echo "run ${{SLURM_RESTART_COUNT:-0}} ends\""""


@dataclass(frozen=True)
class Change:
    """A job's line in the queue is new, or differs from the one before."""

    time_s: float  # since the cluster's daemons were started
    scene: str
    line: Queued


@dataclass
class SlurmRun:
    """What a run showed.

    Attributes:
        reason: why Slurm cannot run here; empty where it ran.
        changes: of the queue, in their order.
        printed: what each job printed, by its name.
        nodes: the states of the nodes at the end of each scene.
        wall_s: from the start of the first daemon until the last one was gone.
    """

    reason: str = ""
    changes: list[Change] = field(default_factory=list)
    printed: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    wall_s: float = 0.0

    def starts(self, job: str) -> list[float]:
        """When a job began to run, each time."""
        states = [(0.0, "")] + [(each.time_s, each.line.state) for each in self.changes if each.line.name == job]
        return [now for (_, before), (now, state) in pairwise(states) if state == "RUNNING" != before]

    def ran_on(self, job: str) -> list[str]:
        """The nodes of a job, each time that it ran."""
        begun = self.starts(job)
        return [each.line.nodes for each in self.changes if each.line.name == job and each.time_s in begun]

    def table(self) -> str:
        """The queue's changes, scene by scene, then the nodes."""
        if self.reason:
            return f"Slurm does not run here: {self.reason}"
        rows = [f"{'s':>5}  {'job':<8} {'partition':<9} {'state':<10} {'nodes':<10} why it waits"]
        for number, each in enumerate(self.changes):
            if number == 0 or self.changes[number - 1].scene != each.scene:
                rows.append(f"-- {each.scene}")
            line, why = each.line, each.line.reason if each.line.state == "PENDING" else ""
            row = f"{each.time_s:5.1f}  {line.name:<8} {line.partition:<9} {line.state:<10} {line.nodes:<10} {why}"
            rows.append(row.rstrip())
        rows += [f"nodes after {scene}: {_spelled(states)}" for scene, states in self.nodes.items()]
        return "\n".join([*rows, f"{self.wall_s:.0f} s from the first daemon's start to the last one's end"])


def _spelled(states: dict[str, str]) -> str:
    return ", ".join(f"{node} {state}" for node, state in states.items())


class Stage:
    """A cluster whose queue is watched."""

    def __init__(self, made: Cluster, run: SlurmRun, began_s: float, patience_s: float) -> None:
        self.cluster, self.run, self.began_s, self.patience_s = made, run, began_s, patience_s
        self.scene, self.seen, self.briefly = "", {}, set()

    def gate(self, name: str) -> Path:
        """The file that lets a job end."""
        return self.cluster.folder / f"{name}.gate"

    def count(self, name: str, *options: str) -> None:
        """Submits a job that counts steps until its gate is open, from where its last run stood."""
        file = self.cluster.folder / f"{name}.step"
        self.cluster.submit(name, COUNT.format(file=file, gate=self.gate(name)), "--requeue", *options)

    def brief(self, name: str, *options: str) -> None:
        """Submits a job that ends when the queue was seen to run it."""
        self.briefly.add(name)
        self.cluster.submit(name, HOLD.format(gate=self.gate(name)), *options)

    def until(self, condition: Callable[[], object]) -> None:
        """Watches the queue until the condition holds.

        Raises:
            TimeoutError: it did not within the patience; the text has the table so far.
            RuntimeError: a job failed; the text has what it printed.
        """
        ends_s = time.monotonic() + self.patience_s
        self.look()
        while not condition():
            if time.monotonic() > ends_s:
                raise TimeoutError(f"Slurm did not come to the end of '{self.scene}':\n{self.run.table()}")
            if failed := [name for name, line in self.seen.items() if line.state == "FAILED"]:
                raise RuntimeError(f"job {failed[0]} failed:\n{self.cluster.printed(failed[0])}")
            time.sleep(POLL_S)
            self.look()

    def look(self) -> None:
        """Notes what has changed in the queue."""
        for line in self.cluster.queue():
            if self.seen.get(line.name) != line:
                self.seen[line.name] = line
                self.run.changes.append(Change(time.monotonic() - self.began_s, self.scene, line))
            if line.name in self.briefly and line.state == "RUNNING":
                self.gate(line.name).touch()

    def is_in(self, state: str, *names: str) -> Callable[[], bool]:
        """The condition that all these jobs are in a state."""
        return lambda: all(name in self.seen and self.seen[name].state == state for name in names)

    def runs_again(self, name: str) -> Callable[[], bool]:
        """The condition that a job was started anew and has said so."""
        return lambda: self.is_in("RUNNING", name)() and "run 1 starts" in self.cluster.printed(name)


def backfill(stage: Stage, command: Sequence[str]) -> None:
    """A short job runs in the gap before a wide one; a job with a generous limit does not."""
    half = ("--nodes=1", "--gpus-per-node=4")
    two = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8")
    set_up = "export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1"
    training = f"srun --kill-on-bad-exit=1 {shlex.join(command)} --out {stage.cluster.folder}/train || exit"
    held = HOLD.format(gate=stage.gate("train"))
    stage.cluster.submit("train", "\n".join([set_up, training, held]), *two, "--time=4")
    stage.brief("wide", "--nodes=4", "--gpus-per-node=8", "--time=4")
    stage.brief("long", *half, "--time=60")
    stage.brief("short", *half, "--time=1")
    stage.until(stage.is_in("COMPLETED", "short"))
    stage.until(lambda: stage.seen["wide"].reason == "Resources")
    stage.gate("train").touch()
    stage.until(stage.is_in("COMPLETED", "train", "wide", "long"))


def preempt(stage: Stage) -> None:
    """An urgent job takes the nodes of another one, which is requeued and goes on from its checkpoint."""
    all_nodes = ("--nodes=4", "--gpus-per-node=8", "--time=10")
    stage.count("low", *all_nodes)
    stage.until((stage.cluster.folder / "low.step").exists)
    stage.until(stage.is_in("RUNNING", "low"))
    stage.brief("urgent", "--partition=high", *all_nodes)
    stage.until(stage.runs_again("low"))
    stage.gate("low").touch()
    stage.until(stage.is_in("COMPLETED", "low", "urgent"))


def loss(stage: Stage) -> None:
    """The first node of a job ends at once; the job runs again on others."""
    stage.count("pair", "--nodes=2", "--gpus-per-node=8", "--time=10")
    stage.until((stage.cluster.folder / "pair.step").exists)
    stage.until(stage.is_in("RUNNING", "pair"))
    first = stage.cluster.call("scontrol", "show", "hostnames", stage.seen["pair"].nodes).split()[0]
    stage.cluster.lose(first)
    stage.until(stage.runs_again("pair"))
    stage.gate("pair").touch()
    stage.until(stage.is_in("COMPLETED", "pair"))


def reserve(stage: Stage) -> None:
    """One node is drained and one reserved: a job with the reservation runs, one without it waits."""
    scontrol = ("scontrol", "--quiet")
    *_, reserved, drained = [name for name, state in stage.cluster.node_states().items() if state == "idle"]
    stage.cluster.call(*scontrol, "update", f"nodename={drained}", "state=drain", "reason=disk")
    what = [f"nodes={reserved}", "users=root", "starttime=now", "duration=60"]
    stage.cluster.call(*scontrol, "create", "reservation", "reservationname=exam", *what)
    stage.cluster.submit("outside", "true", f"--nodelist={reserved}", "--gpus-per-node=8", "--time=1")
    stage.brief("inside", "--reservation=exam", "--nodes=1", "--gpus-per-node=8", "--time=1")
    stage.until(stage.is_in("COMPLETED", "inside"))
    stage.until(lambda: stage.seen["outside"].state == "PENDING" and stage.seen["outside"].reason != "None")


def run_slurm(command: Sequence[str] = TRAIN, patience_s: float = PATIENCE_S) -> SlurmRun:
    """Starts a cluster of four nodes with eight counted GPUs each, plays the four scenes, and ends everything.

    Args:
        command: what the first job starts on two nodes; ` --out FOLDER` is added.
        patience_s: for each thing that a scene waits for.
    """
    run = SlurmRun(reason=missing())
    if run.reason:
        return run
    began_s = time.monotonic()
    scenes = {"backfill": lambda stage: backfill(stage, command), "preempt": preempt, "loss": loss, "reserve": reserve}
    try:
        with cluster() as made:
            stage = Stage(made, run, began_s, patience_s)
            for stage.scene, play in scenes.items():
                play(stage)
                run.nodes[stage.scene] = made.node_states()
            run.printed = {name: made.printed(name) for name in stage.seen}
    except ServerFailed as error:
        run.reason = f"its daemons did not come up: {error}"
    run.wall_s = time.monotonic() - began_s
    return run
