"""Mixed precision: three types, one that weights are kept in, one that the products are computed in, one for sums.

Micikevicius et al. 2018, "Mixed Precision Training", section 3; Zhao et al. 2023, "PyTorch FSDP", section 4.4, for the
policy of three types. Products in 16 bits are fast and their operands half as large. But an update
below 2^-9 of its weight rounds to nothing in bfloat16: so there is a copy of the weights in float32, and the optimizer
steps that one. And gradients of many ranks are a sum, which loses more in 16 bits the more ranks there are.

    held per rank          `Policy()`: 16 bytes a parameter with Adam, as in float32; the copies of 2 bytes live from
                           forward to backward. Parameters in 16 bits with `MasterWeights`: 2 + 2 + 12
    sent per step and rank 2 (n-1)/n of the gradients, in the type of the reduction

`MixedPrecision` has float32 weights and casts them where they are used. `MasterWeights` is the other way round: the
model is in 16 bits, and the optimizer has the float32. Both step the same numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.compat import tree_flatten, tree_unflatten
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


@dataclass(frozen=True)
class Policy:
    """Which type is used for what; by default weights and sums in float32, and products in bfloat16.

    Attributes:
        parameters: What weights and gradients are kept in.
        compute: What forward and backward are computed in.
        reduction: What gradients of several ranks are summed in.

    Raises:
        TypeError: one of them is no floating dtype.
    """

    parameters: torch.dtype = torch.float32
    compute: torch.dtype = torch.bfloat16
    reduction: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name, dtype in vars(self).items():
            if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
                raise TypeError(f"{name}={dtype!r}: expected a floating dtype of torch, as in {name}=torch.bfloat16")


class MixedPrecision(nn.Module):
    """Computes `model` in `policy.compute`; its parameters stay the model's own, in `policy.parameters`.

    Each forward pass casts every parameter once, and floating inputs; autograd casts the gradients back. All layers
    compute in `policy.compute`, as under FSDP; `torch.autocast` leaves softmax and losses in float32. What comes out is
    float32, so that the loss is. Buffers stay as they are. `average_gradients` is for after the backward pass;
    `DDP(MixedPrecision(model, policy))` averages beside it, in the parameters' type.

    Args:
        model: any module; its floating parameters are brought into `policy.parameters` here.
        policy: the three types.
    """

    def __init__(self, model: nn.Module, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(policy.parameters)
        self.module = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model makes of it, in float32."""
        cast = {name: _to(self.policy.compute, p) for name, p in self.module.named_parameters()}
        args, kwargs = _each(self.policy.compute, (args, kwargs))
        output = functional_call(self.module, cast, args, kwargs)
        return _each(torch.promote_types(self.policy.compute, torch.float32), output)

    @keyword_only()
    @torch.no_grad()
    def average_gradients(self, *, mb: int = 0, group: dist.ProcessGroup | None = None) -> None:
        """Replaces each gradient by its mean over the ranks, summed in `policy.reduction`, as one message.

        Each rank divides before it sends, so that a sum in float16 stays in range. All ranks have the same parameters
        with a gradient. `mb` names the message in a trace.
        """
        group = member(group)
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        flat = end_to_end([(grad / group.size()).to(self.policy.reduction) for grad in grads])
        with tag(mb=mb, phase="gradients"):
            dist.all_reduce(flat, group=group)
        put_back(flat, grads)


def _to(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _each(dtype: torch.dtype, values: Any) -> Any:
    """All floating tensors in a structure of tuples, lists and dicts, in `dtype`."""
    leaves, form = tree_flatten(values)
    return tree_unflatten([_to(dtype, leaf) for leaf in leaves], form)


class MasterWeights:
    """An optimizer of float32 copies ("masters") of 16-bit parameters, which it overwrites by the rounded copies.

    `param_groups` are those of the masters: clip over `masters`, and hand `optimizer` to a schedule of learning rates.

    Args:
        parameters: in 16 bits, those of a module, say.
        optimizer_class: what steps the masters; it gets `kwargs`.

    Raises:
        ValueError: no parameter requires a gradient.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], optimizer_class: Callable[..., torch.optim.Optimizer], **kwargs: Any
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise ValueError("MasterWeights got no parameter that requires a gradient: pass model.parameters()")
        self.masters = [nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in self.parameters]
        self.optimizer = optimizer_class(self.masters, **kwargs)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The masters, with their settings."""
        return self.optimizer.param_groups

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Moves the gradients of the parameters to the masters, in float32; what came before is added to.

        `step` and `DynamicScale.unscale` do it by themselves. Clip after it, over `masters`.
        """
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is not None:
                own = parameter.grad.float()
                master.grad = own if master.grad is None else master.grad.add_(own)
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Steps the masters and rounds them into the parameters."""
        self.take_gradients()
        self.optimizer.step()
        self.write_back()

    @torch.no_grad()
    def write_back(self) -> None:
        """Rounds the masters, to nearest, into the parameters. The masters are never read from these again."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)

    def zero_grad(self) -> None:
        """Forgets the gradients of parameters and masters."""
        for p in (*self.parameters, *self.masters):
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The masters and the optimizer's state: a run that goes on from the 16-bit weights would be another one."""
        return {"masters": [p.detach().clone() for p in self.masters], "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave, and overwrites the parameters by it."""
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.write_back()
