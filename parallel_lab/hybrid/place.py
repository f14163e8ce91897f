"""Where this process stands among all ranks, told by torchrun, by Slurm, or alone; and how the ranks meet.

torchrun and most clusters describe a rank by RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. `srun` gives the same facts names of its own, and no place to meet: that is the first host of the step, at
a port that its job's number decides. What is set already wins, so that MASTER_ADDR can be named by hand.
"""

import os
import re
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from parallel_lab import compat
from parallel_lab.runtime import torchrun

FIRST_PORT, PORTS = 20_000, 10_000  # of the steps of Slurm's jobs


class Absent(RuntimeError):
    """The ranks did not meet. The message says who waited where, and for whom."""


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What torch reads to find its rank and nobody has set: from `srun`'s names, or of a world of 1.

    What is set already is left as it is.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        found = {"LOCAL_RANK": "0"}
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        job, step = (int(environment.get(f"SLURM_{name}_ID", 0)) for name in ("JOB", "STEP"))
        here = tasks(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))[int(environment.get("SLURM_NODEID", 0))]
        found = {
            "RANK": environment["SLURM_PROCID"],
            "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
            "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
            "LOCAL_WORLD_SIZE": str(here),
            "MASTER_ADDR": first_host(environment.get("SLURM_STEP_NODELIST", "localhost")),
            "MASTER_PORT": str(FIRST_PORT + (10 * job + step) % PORTS),
        }
    else:
        found = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return found | {name: environment[name] for name in found if name in environment}


def tasks(text: str) -> list[int]:
    """How many tasks each node has, from Slurm's short form: `4(x2),3` is 4, 4 and 3."""
    rows = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in rows for _ in range(int(times or 1))]


def first_host(text: str) -> str:
    """The first of a list of hosts in Slurm's short form: that of `gpu[07-09,12],login` is `gpu07`."""
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", text)
    return "".join(each or "" for each in found.groups()) if found else text


def meet(timeout_s: float) -> compat.Store:
    """A store that all ranks share, once all of them are there.

    Raises:
        Absent: the first rank's host does not answer, or some rank did not come, within `timeout_s`.
    """
    rank, ranks = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    if ranks == 1:
        return compat.HashStore()
    host, port = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", 0))
    where, patience = f"{host}:{port}", timedelta(seconds=timeout_s)
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        socket.getaddrinfo(host, port)
        serves = rank == 0 and not agent
        tcp = compat.TCPStore(host, port, ranks, serves, patience, wait_for_workers=False, multi_tenant=True)
    except OSError as error:
        text = f"rank {rank}: the host {host!r} is not known here ({error.strerror or error})"
        raise Absent(f"{text}; name the first host by its address: MASTER_ADDR=192.0.2.1") from None
    except dist.DistError as error:
        if rank == 0 and not agent:
            first = str(error).splitlines()[0]
            raise Absent(f"rank 0 cannot listen at {where} ({first}); name another port: MASTER_PORT=29501") from None
        raise Absent(
            f"rank {rank}: {where} does not answer within {timeout_s:g} s. Is rank 0 running there, is the port open"
            " between the hosts, and is MASTER_ADDR an address by which this host reaches it?"
        ) from None
    store = compat.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", tcp)
    store.set(f"here {rank}", socket.gethostname())
    _wait_for_all(store, rank, ranks, where, patience)
    return store


def _wait_for_all(store: compat.Store, rank: int, ranks: int, where: str, patience: timedelta) -> None:
    keys = [f"here {other}" for other in range(ranks)]
    try:
        store.wait(keys, patience)
    except RuntimeError:
        absent = [str(other) for other, key in enumerate(keys) if not store.check([key])]
        hosts = os.environ.get("SLURM_STEP_NODELIST", "")
        raise Absent(
            f"rank {rank} waited {patience.total_seconds():g} s at {where} for rank{'s' * (len(absent) > 1)}"
            f" {', '.join(absent)} of {ranks}, in vain. Start the command on every host"
            f"{f' ({hosts})' if hosts else ''}, and see that {where} can be reached from there"
        ) from None


def join(timeout_s: float) -> compat.Store:
    """Meets the other ranks and makes the lab's group the default one.

    Raises:
        Absent: as `meet`, or the ranks cannot reach one another.
    """
    store = meet(timeout_s)
    rank, ranks = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    try:
        torchrun.join(store, rank, ranks)
        dist.barrier()  # the first rank has the store: it must not end while others still look for each other there
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise Absent(
            f"rank {rank} met the others at {os.environ.get('MASTER_ADDR')}, and cannot reach some of them: {first}."
            " The hosts must reach each other at any port"
        ) from error
    return store
