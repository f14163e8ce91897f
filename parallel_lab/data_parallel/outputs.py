"""The tensors in what a module returned."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in what a module returned: itself, or in tuples, lists, mappings and dataclasses, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors_in(getattr(value, each.name, None))


def on_gradient(output: Any, hook: Callable[[Tensor], None]) -> None:
    """Has `hook` called with the gradient of each tensor in `output` that has one, when a backward pass comes to it."""
    for tensor in tensors_in(output):
        if tensor.requires_grad:
            tensor.register_hook(hook)
