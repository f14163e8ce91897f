"""One machine as a Slurm cluster, in a folder of its own: a key, ports of the loopback, and the real daemons.

Each node is Slurm's own `slurmd` in a space of its own (`processes.Space`), so that the node's loss can be real: the
kernel kills the daemon and all that it has started, at once. The controller has a space as well. All of it ends with
the block, and with the process that made it. Four things are special here. Root is needed. All nodes share this
machine's processor and files. A GPU is a name that Slurm counts, and no device. `cred_expire` is 5 s and not 120 s; it
is also how long Slurm holds a requeued job back.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_lab.systems.processes import OWN, PATIENCE_S, Server, Space, space, temporary, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "sinfo", "scontrol", "scancel")
SPACE = ("unshare", "nsenter", "setpriv")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # the daemons of Debian stand in sbin
NODES, GPUS = ("n1", "n2", "n3", "n4"), 8
CONFIG = """
ClusterName=plab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=6
MessageTimeout=3
KillWait=1
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={gpus} Gres=gpu:{gpus} State=UNKNOWN"


class Queued(NamedTuple):
    """A job as `squeue` shows it."""

    name: str
    partition: str
    state: str
    reason: str  # why it waits
    nodes: str


def missing() -> str:
    """Why no cluster can be made here; empty where it can."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        return f"Slurm is not installed (no {', no '.join(absent)}): apt-get install slurm-wlm munge"
    if absent := [name for name in SPACE if shutil.which(name) is None]:
        return f"there is no {' and no '.join(absent)} here: apt-get install util-linux"
    if os.geteuid():
        return "Slurm's daemons start as root only"
    done = subprocess.run([*OWN, "true"], capture_output=True, text=True)
    return f"unshare: {done.stderr.strip()}" if done.returncode else ""


class Cluster:
    """Daemons that run, and the commands of their users.

    Attributes:
        environment: by which any command of Slurm finds the cluster.
        nodes: the space of each node, by its name.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.nodes: dict[str, Space] = {}
        self.daemons: list[Server] = []

    def call(self, *command: object) -> str:
        """What a command of Slurm prints.

        Raises:
            RuntimeError: it did not end well.
        """
        done = subprocess.run(list(map(str, command)), env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, name: str, script: str, *options: str) -> int:
        """Gives a shell script to `sbatch`, and returns the job's number; what the job prints is in `printed(name)`."""
        path = self.folder / f"{name}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        output = (f"--job-name={name}", f"--output={self.folder}/{name}.out", "--open-mode=append")
        return int(self.call("sbatch", "--parsable", *output, *options, path))

    def printed(self, name: str) -> str:
        """What a job has printed so far, in all its runs."""
        path = self.folder / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def queue(self) -> list[Queued]:
        """The jobs that wait, run, or have just ended, in the order in which they came."""
        form = "%j|%P|%T|%r|%N"
        rows = self.call("squeue", "--all", "--states=all", "--sort=i", "--noheader", f"--format={form}")
        return [Queued(*line.split("|")) for line in rows.splitlines()]

    def node_states(self) -> dict[str, str]:
        """The state of each node as `sinfo` says it, a star where it does not answer; none while no controller does."""
        command = ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T"]
        rows = subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout.splitlines()
        return dict(row.split() for row in rows)

    def start(self, where: Space, name: str, *options: object) -> None:
        """Starts a daemon in a space."""
        own = [f"{key}={self.environment[key]}" for key in ("SLURM_CONF", "PATH")]
        self.daemons.append(where.serve(name, "env", *own, name, *options))

    def lose(self, node: str) -> None:
        """Ends a node at once, with all that runs on it, and tells nobody."""
        self.nodes[node].end()


@contextlib.contextmanager
def cluster(names: Sequence[str] = NODES, gpus: int = GPUS) -> Iterator[Cluster]:
    """A cluster while the block runs.

    Args:
        names: of its nodes; where ranks look up the first node to meet there, this machine must know its name.
        gpus: that Slurm counts on each node.
    """
    with temporary() as folder, contextlib.ExitStack() as spaces:
        configure(folder, names, gpus)
        made = Cluster(folder, _environment(folder))
        controller = spaces.enter_context(_space(folder, "controller"))
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        munge = [f"--socket={folder}/munge.socket", "--num-threads=2", *files]
        made.start(controller, "munged", "--foreground", "--force", *munge)
        wait_for((folder / "munge.socket").exists, made.daemons, PATIENCE_S)
        made.start(controller, "slurmctld", "-D")
        for name in names:
            made.nodes[name] = spaces.enter_context(_space(folder, name))
            made.start(made.nodes[name], "slurmd", "-D", "-N", name)
        wait_for(lambda: list(made.node_states().values()).count("idle") == len(names), made.daemons, PATIENCE_S)
        yield made


def _space(folder: Path, name: str) -> contextlib.AbstractContextManager[Space]:
    (folder / name).mkdir()
    return space(folder / name)


def _environment(folder: Path) -> dict[str, str]:
    """This process's environment without what another Slurm has set in it, and with the way to this one."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return own | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}


def configure(folder: Path, names: Sequence[str], gpus: int) -> None:
    """Writes what the daemons read: a key, `slurm.conf` and `gres.conf`."""
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    (folder / "state").mkdir()
    host, (port, *ports) = socket.gethostname(), free_ports(1 + len(names))
    rows = [NODE.format(name=name, host=host, port=at, gpus=gpus) for name, at in zip(names, ports, strict=True)]
    text = CONFIG.format(host=host, port=port, folder=folder, nodes="\n".join(rows))
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    for number in range(gpus):
        (folder / f"gpu{number}").touch()
    gres = [f"NodeName={name} Name=gpu File={folder}/gpu[0-{gpus - 1}]" for name in names]
    (folder / "gres.conf").write_text("\n".join(["AutoDetect=off", *gres, ""]), encoding="utf-8")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
