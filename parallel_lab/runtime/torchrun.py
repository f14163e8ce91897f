"""The same function under torchrun, across hosts: the ranks exist already, so `launch` joins them and runs it here."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from parallel_lab import compat
from parallel_lab.runtime.device import local_device, rank_device
from parallel_lab.runtime.errors import LaunchError
from parallel_lab.runtime.rank import backend
from parallel_lab.runtime.rank.gpu import start_recorder
from parallel_lab.trace.record import recorder, wanted

LONGEST_S = 1800.0  # torch's own patience, where launch has more


def active() -> bool:
    """Whether this process is a rank that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "PARALLEL_LAB_DEVICE" not in os.environ


def run_here(make_run: Callable[..., Any], call: Callable[[], Any], seed: int, timeout_s: float, record: bool) -> Any:
    """Joins the group that torchrun describes in the environment, calls `call`, and returns a run with its result."""
    if not dist.is_initialized():
        _join(min(timeout_s, LONGEST_S))
    torch.manual_seed(seed)
    start_recorder(dist.get_rank(), 0.0, record and wanted())
    result = call()
    return make_run([result], recorder().trace(dist.get_world_size()), [""])


def _join(timeout_s: float) -> None:
    """Meets the other ranks within `timeout_s`; the group itself keeps torch's own patience."""
    try:
        store, rank, ranks = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    except Exception as error:
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise LaunchError(
            "TORCHELASTIC_RUN_ID says that torchrun started this process, but its ranks did not meet at "
            f"{where} within {timeout_s:g} s. Where the variable was left behind: del os.environ['TORCHELASTIC_RUN_ID']"
        ) from error
    join(store, rank, ranks)


def join(store: compat.Store, rank: int, ranks: int) -> None:
    """Makes the lab's group the default one, once the ranks have met at `store`.

    Where the ranks stand on several hosts, gloo listens on the address by which this one reaches the others: what the
    host's own name means is often an address of the loopback.
    """
    chosen, here = local_device(), rank_device()
    if here.type == "cuda":
        torch.cuda.set_device(here)
    host = _own_address(store, rank, ranks) if ranks > int(os.environ.get("LOCAL_WORLD_SIZE", 1)) else None
    backend.door = backend.Door(chosen.backend, host)
    dist.init_process_group("lab", store=compat.PrefixStore("default_pg", store), rank=rank, world_size=ranks)


def _own_address(store: compat.Store, rank: int, ranks: int) -> str | None:
    """The address of this host on the way to the first rank; of the first rank's host, on the way to any other."""
    mine = address_towards(os.environ.get("MASTER_ADDR", ""))
    store.set(f"address {rank}", mine)
    if not mine.startswith("127.") and mine != "::1":
        return mine or None
    others = (store.get(f"address {other}").decode() for other in range(ranks))
    there = next((each for each in others if not each.startswith("127.") and each not in ("", "::1")), "")
    return address_towards(there) or mine or None


def address_towards(host: str) -> str:
    """The address of this machine from which packets to `host` leave; empty where no way leads there."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # sends nothing
                return probe.getsockname()[0]
    except OSError:
        pass
    return ""
