"""What stands in a model where Zero3 has taken a parameter away: it says so to whoever uses it.

A freed tensor keeps its shape but has no memory, and a kernel that reads it ends the process or computes nonsense. So
while a unit is not gathered its modules hold these instead. It is the very parameter object that was there before
Zero3, so that an optimizer made over the old parameters meets the error too, where it would otherwise step nothing.
"""

import torch
from torch import Tensor, nn

_HARMLESS = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "requires_grad", "is_meta", "is_sparse", "ndim")
} | {Tensor.untyped_storage, Tensor.numel, Tensor.size, Tensor.dim}


class Released(nn.Parameter):
    """A parameter whose values are sharded. Its shape and dtype can be asked for; all else raises RuntimeError."""

    label: str

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Raises, unless nothing but the description of the tensor is asked for."""
        if func in _HARMLESS:
            return super().__torch_function__(func, types, args, kwargs or {})
        if func == Tensor.is_leaf.__get__:  # pyright: ignore[reportAttributeAccessIssue] (a getset descriptor)
            return False  # so that those who look for gradients on leaves pass by
        raise RuntimeError(_text([*args, *(kwargs or {}).values()]))

    def __repr__(self, **_) -> str:
        return f"Released({self.label!r})"

    def __deepcopy__(self, memo):
        raise RuntimeError(_text([self]))

    def __reduce_ex__(self, protocol):
        raise RuntimeError(_text([self]))


def _text(args) -> str:
    label = next((arg.label for arg in _flat(args) if isinstance(arg, Released)), "a parameter")
    return (
        f"{label} is sharded by Zero3 and not gathered now. Its values are there only inside the forward pass of its"
        " unit: call the Zero3 model, or take full_state_dict(). Make optimizers from Zero3(...).parameters(), after"
        " Zero3 was made; move the model to its device before."
    )


def _flat(args):
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from _flat(arg)
        else:
            yield arg


def release(parameter: nn.Parameter, label: str) -> Released:
    """Turns `parameter` into a `Released` named `label` and gives its memory back."""
    parameter.grad = None
    empty = torch.empty_like(parameter)  # its own storage: the old one may be shared with other parameters
    empty.untyped_storage().resize_(0)
    parameter.data = empty
    parameter.__class__ = Released
    parameter.label = label  # pyright: ignore[reportAttributeAccessIssue] (it is a Released now)
    assert isinstance(parameter, Released)
    return parameter
