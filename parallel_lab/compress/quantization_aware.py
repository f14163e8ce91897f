"""Quantization-aware training: compute with rounded weights, and train the float32 ones behind them.

Jacob et al. 2018, section 3, and Bengio et al. 2013 (arXiv 1308.3432) for the gradient. Rounding is a staircase with a
derivative of 0 nearly everywhere, so backward takes it for the identity: the gradient goes *straight through* to the
float32 weight, and is 0 where the code was clipped. Small steps add up in the float32 weight until a code changes.
The scale is that of the weight at each step, and counts as a constant.

    stored     while training more than without: float32 weights and what they round to; afterwards as `quantization`
    sent       data-parallel, the gradients of the float32 weights: not a byte less
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.compress.quantization import code_range, quantize
from parallel_lab.compress.quantized_linear import QuantizedLinear, replace_linears


class StraightThrough(torch.autograd.Function):
    """What a weight is after rounding; backward, the gradient of the numbers that were not clipped."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int, how: dict[str, Any]) -> Tensor:
        """`how` as in `quantize`."""
        made = quantize(weight, bits, **how)
        rows = weight.reshape(len(made.scale), -1)
        least, most = code_range(bits, made.symmetric)
        codes = torch.round(rows * (1 / made.scale[:, None])) + made.zero[:, None]
        ctx.save_for_backward(((codes >= least) & (codes <= most)).view(weight.shape))
        return made.dequantize()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient as it came, and 0 where a number was clipped."""
        (kept,) = ctx.saved_tensors
        return grads[0] * kept, None, None


class RoundedLinear(nn.Linear):
    """A linear that computes with its weight rounded; its `weight` is the float32 one, which an optimizer steps."""

    def __init__(self, linear: nn.Linear, bits: int, how: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.bits, self.how = bits, how

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(..., in) to (..., out)."""
        return F.linear(x, StraightThrough.apply(self.weight, self.bits, self.how), self.bias)


def prepare(model: nn.Module, bits: int = 8, **how: Any) -> nn.Module:
    """A copy of `model` to train, whose linears round their weights; `how` as in `quantize`."""
    return replace_linears(model, lambda _, linear: RoundedLinear(linear, bits, how))


def convert(model: nn.Module) -> nn.Module:
    """A copy of a trained model that stores codes: it computes what the trained one does."""

    def made(_: str, linear: nn.Linear) -> nn.Module:
        if not isinstance(linear, RoundedLinear):
            return linear
        return QuantizedLinear(quantize(linear.weight, linear.bits, **linear.how), linear.bias)

    return replace_linears(model, made)
