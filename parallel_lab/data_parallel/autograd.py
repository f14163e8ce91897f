"""What DDP, Zero2 and Zero3 ask of autograd: when a backward pass comes to an output, runs, and is over."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from parallel_lab import compat
from parallel_lab.trace import recorder


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


def on_gradient(output: Any, hook: Callable[[Tensor], None]) -> bool:
    """Has `hook` called with the gradient of each tensor in `output` that gets one; returns whether there is one."""
    tensors = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
    for tensor in tensors:
        tensor.register_hook(hook)
    return bool(tensors)


def in_backward() -> bool:
    """Whether a backward pass runs on this thread: a forward pass is then one that computes activations again."""
    return compat.backward_pass() != -1


def record_stretch(part: int, mb: int, start_s: float) -> float:
    """Writes down that backward pass `mb` computed bucket `part` from `start_s` until now, which is returned."""
    recorder().complete(recorder().issue("backward", part=part, mb=mb, phase="backward", start_s=start_s))
    return recorder().now()
