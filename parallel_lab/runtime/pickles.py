"""Copies of values for another process, without what they do not need.

A slice of a tensor carries its whole storage when it is pickled. Here it carries only its own elements.
"""

import io
from typing import Any

import cloudpickle
import torch
from torch import Tensor


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) in (Tensor, torch.nn.Parameter) and _is_slice(obj):
            return _alone(obj).__reduce_ex__(cloudpickle.DEFAULT_PROTOCOL)
        return super().reducer_override(obj)


def _is_slice(tensor: Tensor) -> bool:
    """Whether the tensor has much less than its storage holds."""
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.untyped_storage().nbytes() > tensor.nbytes


def _alone(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own."""
    copy = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        copy = torch.nn.Parameter(copy, tensor.requires_grad)
    copy.requires_grad_(tensor.requires_grad)
    for name, value in vars(tensor).items():
        setattr(copy, name, value)
    return copy


def dumps(value: Any) -> bytes:
    """The value as cloudpickle writes it: functions and classes of a notebook by value."""
    with io.BytesIO() as file:
        _Pickler(file, cloudpickle.DEFAULT_PROTOCOL).dump(value)
        return file.getvalue()
