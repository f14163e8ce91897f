"""Which backend and device a rank gets, and why."""

import os
from typing import NamedTuple

import torch

WISHES = ("auto", "cpu", "cuda")


class Device(NamedTuple):
    """Where the ranks of a launch compute and what carries their messages.

    Attributes:
        backend: `gloo` or `nccl`.
        kind: `cpu` or `cuda`.
        gpus: how many GPUs there are to share.
        why: one sentence for people.
    """

    backend: str
    kind: str
    gpus: int
    why: str

    def of(self, rank: int) -> torch.device:
        """The device of one rank: ranks take GPUs in turn."""
        return torch.device("cuda", rank % self.gpus) if self.kind == "cuda" else torch.device("cpu")


def choose_device(ranks: int, wish: str = "auto") -> Device:
    """The device for `ranks` ranks.

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
    if gpus >= ranks > 1 and torch.distributed.is_nccl_available():
        return Device("nccl", "cuda", gpus, f"NCCL with a GPU each: {gpus} GPUs for {ranks} ranks")
    reason = "one rank sends nothing" if ranks == 1 else "NCCL wants a GPU a rank"
    return Device("gloo", "cuda", gpus, f"gloo with {ranks} ranks on {gpus} GPU: {reason}")


def rank_device() -> torch.device:
    """The device of this rank: what `launch` chose, or the local GPU (else the CPU) under torchrun."""
    chosen = os.environ.get("PARALLEL_LAB_DEVICE")
    if chosen:
        return torch.device(chosen)
    local = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
