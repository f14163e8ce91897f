"""Exchange of Zero3's checkpoints with `torch.distributed.checkpoint`, and so with FSDP2: nothing is gathered for it.

A shard of Zero3 is what FSDP2 keeps in a DTensor with the placement `Shard(0)`. So the state dict of FSDP2 is made here
on the memory of the shards: each rank writes and reads its own rows, at any number of ranks.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load as load_dcp
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from parallel_lab.data_parallel import checkpoint
from parallel_lab.data_parallel.units import Slot
from parallel_lab.data_parallel.zero3 import Zero3


def torch_state(zero: Zero3, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """What torch's `get_state_dict` gives for FSDP2: `{"model": …, "optim": …}`, DTensors by name.

    Its tensors are those of `zero` and `optimizer` themselves: who writes into them, changes these. An optimizer that
    has made no step yet is given zeros, so that a checkpoint can be loaded.
    """
    zero.reset()
    device = zero.device.type
    mesh = zero.groups.mesh or DeviceMesh.from_group(zero.group, device)
    placements: list[Placement] = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]

    def whole(shard: Tensor, slot: Slot) -> DTensor:
        shape = slot.shape or torch.Size([1])
        stride = torch.empty(shape, device="meta").stride()
        local = shard.detach()
        return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)

    slots = zero.slots
    held = zero.module.state_dict(keep_vars=True)
    state: dict[str, Any] = {"model": {n: whole(v, slots[v]) if v in slots else v for n, v in held.items()}}
    if optimizer:
        _begin(optimizer)
        states = {
            slots[p].name: {k: whole(v, slots[p]) if torch.is_tensor(v) and v.dim() else v for k, v in each.items()}
            for p, each in optimizer.state.items()
        }
        groups = checkpoint.groups_of(optimizer.param_groups, {p: slot.name for p, slot in slots.items()})
        state["optim"] = {"state": states, "param_groups": groups}
    return state


def _begin(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer that has made no step its state, with a step that changes nothing, as torch does."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if optimizer.state or any(p.grad is not None for p in parameters):
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def save(zero: Zero3, directory: str | Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Writes a checkpoint that `torch.distributed.checkpoint` reads. All ranks call it."""
    save_dcp(torch_state(zero, optimizer), checkpoint_id=directory)


def load(zero: Zero3, directory: str | Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Reads a checkpoint that `torch.distributed.checkpoint` has written, of FSDP2 or of `save`. All ranks call it."""
    state = torch_state(zero, optimizer)
    load_dcp(state, checkpoint_id=directory)
    if optimizer:
        checkpoint.copy_settings(state["optim"]["param_groups"], optimizer.param_groups)
