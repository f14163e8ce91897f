"""What autograd saves for the backward pass, with handles in place of some tensors.

Autograd saves a layer's weight in the forward pass, so dropping the weight after it would free nothing. A technique
that wants it freed gives a handle instead, and the tensor again when the backward pass asks for it. Everything else is
kept as autograd would: changing a saved tensor in place is an error, and hooks that were set further out, such as those
of `torch.utils.checkpoint` or of a measurement, get their tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Hooks = torch.autograd.graph.saved_tensors_hooks
_outer_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def saved_as_handles(handle_of: Callable[[Tensor], Any], tensor_of: Callable[[Any], Tensor]) -> Hooks:
    """A context manager: inside, autograd saves `handle_of(tensor)`, and `tensor_of(handle)` is what it gets back.

    Args:
        handle_of: None for a tensor that is to be saved itself.
        tensor_of: called in the backward pass, as often as autograd looks.
    """
    pack_outer, unpack_outer = _outer_hooks(False) or (_keep, _give)

    def pack(tensor: Tensor) -> Any:
        handle = handle_of(tensor)
        return (tensor_of, handle) if handle is not None else (unpack_outer, pack_outer(tensor))

    return Hooks(pack, lambda packed: packed[0](packed[1]))


def _keep(tensor: Tensor) -> tuple[Tensor, int]:
    # Detached: an output that its own node saves would hold that node, and neither would ever be freed.
    return tensor.detach(), tensor._version


def _give(kept: tuple[Tensor, int]) -> Tensor:
    tensor, version = kept
    if tensor._version != version:  # autograd leaves this check out where hooks are set
        text = f"a tensor {tuple(tensor.shape)} that the backward pass needs has been modified by an inplace operation"
        raise RuntimeError(f"{text}: it is at version {tensor._version}, and was saved at version {version}")
    return tensor
