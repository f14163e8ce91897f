"""Exchange of Zero3's checkpoints with `torch.distributed.checkpoint`, and so with FSDP2: nothing is gathered for it.

A shard of Zero3 is what FSDP2 keeps in a DTensor with the placement `Shard(0)`. So the state dict of FSDP2 is made here
on the memory of the shards: each rank writes and reads its own rows, at any number of ranks.
"""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_dcp
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.zero3 import Zero3


def torch_state(zero: Zero3, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """What torch's `get_state_dict` gives for FSDP2: `{"model": …, "optim": …}`, DTensors by name.

    Its tensors are those of `zero` and `optimizer` themselves: who writes into them, changes these. An optimizer that
    has made no step yet is given zeros, so that a checkpoint can be loaded.
    """
    zero.reset()
    mesh = zero.groups.mesh or DeviceMesh.from_group(zero.group, zero.device.type)
    placements: list[Placement] = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]
    slots = zero.slots
    shapes = {n: slots[p].shape or (1,) for n, p in zero.module.named_parameters(remove_duplicate=False) if p in slots}

    def whole(name: str, value: Any) -> Any:
        if name not in shapes or not torch.is_tensor(value) or value.dim() == 0:
            return value
        like = torch.empty(shapes[name], device="meta")
        local = value.detach()
        return DTensor.from_local(local, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())

    model, optim = get_state_dict(zero.module, [optimizer] if optimizer else [])
    states: Any = optim["state"]
    rows = {name: {key: whole(name, value) for key, value in each.items()} for name, each in states.items()}
    state: dict[str, Any] = {"model": {name: whole(name, value) for name, value in model.items()}}
    return state | ({"optim": {**optim, "state": rows}} if optimizer else {})


def save(zero: Zero3, directory: str | Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Writes a checkpoint that `torch.distributed.checkpoint` reads. All ranks call it."""
    save_dcp(torch_state(zero, optimizer), checkpoint_id=directory)


def load(zero: Zero3, directory: str | Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Reads a checkpoint that `torch.distributed.checkpoint` has written, of FSDP2 or of `save`. All ranks call it."""
    state = torch_state(zero, optimizer)
    load_dcp(state, checkpoint_id=directory)
    if optimizer:
        checkpoint.copy_settings(state["optim"]["param_groups"], optimizer.param_groups)
