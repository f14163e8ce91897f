"""A linear whose weight is stored in codes, and a model whose linears are such.

The codes are packed, and each call computes with Δ (code - zero): bytes are saved where the weight lies and where it is
read from, and the product is one of floating-point numbers. A fused kernel decodes while it multiplies; here the
decoded weight is written out first, which costs time. With `rounds`, inputs are put on a grid of codes too (its range
comes from calibration). Then Δ_x Δ_w (code_x - zero_x)(code_w - zero_w) could be summed in integers; the value is the
same.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.compress.quantization import Quantized, encode, pack, quantize, unpack

Make = Callable[[str, nn.Linear], nn.Module]  # of the name and the linear: what takes its place


class QuantizedLinear(nn.Module):
    """(..., in) to (..., out), as the `nn.Linear` whose weight was quantized.

    `factors` (in,) divide the inputs where the weight was multiplied with them beforehand (activation-aware).
    """

    packed: Tensor
    scale: Tensor
    zero: Tensor | None
    factors: Tensor | None
    input_scale: Tensor | None
    input_zero: Tensor

    def __init__(self, quantized: Quantized, bias: Tensor | None = None, factors: Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.symmetric, self.shape = quantized.bits, quantized.symmetric, quantized.codes.shape
        self.register_buffer("packed", pack(quantized.codes, self.bits))
        self.register_buffer("scale", quantized.scale)
        self.register_buffer("zero", None if self.symmetric else pack(quantized.zero, self.bits))
        self.register_buffer("factors", factors)
        self.register_buffer("input_scale", None)
        self.register_buffer("input_zero", None)
        self.bias = bias if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """Δ (code - zero), (out, in)."""
        return self.quantized().dequantize()

    def quantized(self) -> Quantized:
        """The codes, unpacked."""
        zero: Any = torch.zeros_like(self.scale, dtype=torch.int32)
        if self.zero is not None:
            zero = unpack(self.zero, self.scale.shape, symmetric=False).to(torch.int32)
        return Quantized(unpack(self.packed, self.shape, self.symmetric), self.scale, zero, self.bits, self.symmetric)

    def rounds(self, scale: Tensor, zero: Tensor) -> None:
        """From now on inputs are rounded to 8-bit codes with this scale and zero point, each (1,)."""
        self.input_scale, self.input_zero = scale, zero

    def scaled(self, x: Tensor) -> Tensor:
        """The inputs that the codes are for."""
        return x if self.factors is None else x / self.factors

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        x = self.scaled(x)
        if self.input_scale is not None:
            x = encode(x, self.input_scale, self.input_zero, 8, symmetric=False).dequantize()
        return F.linear(x, self.weight, self.bias)


def replace_linears(model: nn.Module, make: Make) -> nn.Module:
    """A copy of `model` in which `make(name, linear)` stands for each linear, in the order of their definition.

    A linear whose weight another module has too (an output layer tied to the embedding) stays as it is.
    """
    model = deepcopy(model)
    if isinstance(model, nn.Linear):
        return make("", model)
    for name, linear in own_linears(model).items():
        put(model, name, make(name, linear))
    return model


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Sets the module of that name, in place."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def own_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """By name the linears whose weight no other module has."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    linears = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {name: linear for name, linear in linears if uses[id(linear.weight)] == 1}


def round_to_nearest(model: nn.Module, bits: int = 8, **how: Any) -> nn.Module:
    """A copy of `model` whose linears are quantized one by one, without data; `how` as in `quantize`."""
    return replace_linears(model, lambda _, linear: QuantizedLinear(quantize(linear.weight, bits, **how), linear.bias))
