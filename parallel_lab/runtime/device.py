"""Which backend and device a rank gets, and why."""

import os
from typing import NamedTuple

import torch

WISHES = ("auto", "cpu", "cuda")


class Device(NamedTuple):
    """Where the ranks of a launch compute and what carries their messages."""

    backend: str  # `gloo` or `nccl`
    kind: str  # `cpu` or `cuda`
    gpus: int  # how many GPUs there are to share
    why: str  # one sentence for people

    def of(self, rank: int) -> torch.device:
        """The device of one rank: ranks take GPUs in turn."""
        return torch.device("cuda", rank % self.gpus) if self.kind == "cuda" else torch.device("cpu")


def choose_device(ranks: int, wish: str = "auto", may_fail: bool = False, world: int = 0) -> Device:
    """The device for the `ranks` ranks of this machine, of `world` on all machines.

    Where some `may_fail` while others go on, it is not NCCL: nothing would tell those.

    Raises:
        ValueError: the wish is unknown, or it is `cuda` and there is no GPU.
    """
    if wish not in WISHES:
        raise ValueError(f"device={wish!r}: expected one of {', '.join(WISHES)}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "cuda" and not gpus:
        raise ValueError('device="cuda": torch sees no GPU here; leave the argument out to run on the CPU')
    if wish == "cpu" or not gpus:
        reason = "as asked" if wish == "cpu" else "torch sees no GPU"
        return Device("gloo", "cpu", 0, f"gloo on the CPU: {reason}")
    reason = ""
    if max(ranks, world) == 1:
        reason = "one rank sends nothing"
    elif gpus < ranks:
        reason = "NCCL wants a GPU for each rank; ranks that share one take turns on it, so their times prove nothing"
    elif may_fail or not torch.distributed.is_nccl_available():
        reason = "NCCL tells no rank that another has died" if may_fail else "this torch has no NCCL"
    if reason:
        return Device("gloo", "cuda", gpus, f"gloo with {ranks} ranks on {gpus} GPU: {reason}")
    return Device("nccl", "cuda", gpus, f"NCCL with a GPU each: {gpus} GPUs for {ranks} ranks")


def rank_device() -> torch.device:
    """The device of this rank: what `launch` chose, or a local GPU (else the CPU) under torchrun."""
    chosen = os.environ.get("PARALLEL_LAB_DEVICE")
    return torch.device(chosen) if chosen else local_device().of(int(os.environ.get("LOCAL_RANK", 0)))


def local_device() -> Device:
    """The device of the ranks that torchrun started on this machine."""
    here, world = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    return choose_device(here, world=world)
