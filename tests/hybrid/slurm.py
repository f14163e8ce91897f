"""One machine as a Slurm cluster of two nodes, in a folder of its own: a key, its own ports, and four daemons."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "srun")
HOST = socket.gethostname()
NODES = (HOST, f"{HOST}-2")  # the ranks meet at the first by its name, which must be known here
PATIENCE_S = 60.0
CONFIG = """
ClusterName=plab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
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
SelectType=select/cons_tres
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
KillWait=5
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Why no cluster can be made here; empty where it can."""
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons start as root only"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment for `srun`, while two nodes are up."""
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    (folder / "state").mkdir()
    text = CONFIG.format(host=HOST, folder=folder, ports=free_ports(3), nodes=NODES)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", "--num-threads=2", *files],
        ["slurmctld", "-D"],
        *(["slurmd", "-D", "-N", node] for node in NODES),
    ]
    daemons = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "ab") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            if command[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists(), daemons, folder)
        _until(lambda: _idle(environment) == len(NODES), daemons, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--Node", "--format=%t"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split().count("idle")


def _until(condition, daemons, folder: Path) -> None:
    """Waits for a condition; a daemon that ends meanwhile tells why."""
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        ended = [daemon.args[0] for daemon in daemons if daemon.poll() is not None]
        if ended or time.monotonic() > ends_s:
            logs = "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"the cluster did not come up ({', '.join(ended) or 'time is up'}):\n{logs}")
        time.sleep(0.1)
