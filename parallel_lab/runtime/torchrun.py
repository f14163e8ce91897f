"""The same function under torchrun, across hosts: the ranks exist already, so `launch` joins them and runs it here."""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from parallel_lab.runtime import backend
from parallel_lab.runtime.device import rank_device
from parallel_lab.trace.record import Recorder, install, recorder
from parallel_lab.trace.span import Trace


def active() -> bool:
    """Whether this process is a rank that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "PARALLEL_LAB_DEVICE" not in os.environ


def run_here(make_run: Callable[..., Any], call: Callable[[], Any], seed: int) -> Any:
    """Joins the group that torchrun describes in the environment, calls `call`, and returns a run with its result."""
    if not dist.is_initialized():
        if rank_device().type == "cuda":
            torch.cuda.set_device(rank_device())
            backend.door = backend.Door("nccl")
        dist.init_process_group("lab")
    torch.manual_seed(seed)
    install(Recorder(dist.get_rank()))
    result = call()
    return make_run([result], Trace(dist.get_world_size(), tuple(recorder().spans), tuple(recorder().samples)), [""])
