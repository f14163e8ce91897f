"""What autograd saves for the backward pass, without the memory of tensors that somebody can bring again.

Autograd saves a layer's weight in the forward pass, so dropping the weight after it would free nothing. A technique
that wants it freed says whose memory it is, and brings that memory again when the backward pass asks for it. Everything
else is kept as autograd would: changing a saved tensor in place is an error, and hooks that were set further out, such
as those of `torch.utils.checkpoint` or of a measurement, get their tensors.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from parallel_lab import compat

Hooks = torch.autograd.graph.saved_tensors_hooks


def without_memory_of(owners: Callable[[], Iterable[tuple[Any, Any]]], bring: Callable[[Any], Any]) -> Hooks:
    """A context manager: inside, autograd saves no tensor that lies in the memory of an owner.

    `owners` gives who owns memory now, with the vector that is that memory; `bring` gives the vector of an owner again,
    in the backward pass, as often as autograd looks.
    """
    pack_outer, unpack_outer = compat.saved_tensors_hooks(False) or (_keep, _give)

    def pack(tensor: Tensor) -> Any:
        for owner, vector in owners() if tensor.layout is torch.strided else ():
            if tensor.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr():
                place = tensor.size(), tensor.stride(), tensor.storage_offset()
                if tensor.dtype == vector.dtype and not tensor.is_neg():
                    return view, (owner, place, tensor.is_conj())
        return unpack_outer, pack_outer(tensor)

    def view(saved: tuple[Any, tuple, bool]) -> Tensor:
        owner, place, conjugate = saved
        tensor = bring(owner).as_strided(*place)
        return tensor.conj() if conjugate else tensor

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
