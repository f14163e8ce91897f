"""Activation-aware quantization: what large inputs are multiplied with gets finer steps, and nothing else changes.

Lin et al. 2024, "AWQ: activation-aware weight quantization for LLM compression and acceleration" (arXiv 2306.00978),
section 3.2. (x / factors) (diag(factors) w) is the same for all factors above 0, but not once the right half is
rounded: the error of input i is then divided by factors_i. factors_i is the mean of |x_i| to an exponent between 0
(round to nearest) and 1, the one whose outputs are best on the calibration inputs. Nothing is trained, and no input's
weights make up for another's. `weight` is (out, in), the transpose of w.

    stored     as `quantization`, and the factors: 4 bytes an input. Where a norm or a linear stands before, they can go
               into its weight, as in the paper, and are free. The paper also searches a clipping range, which is left
               out here.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parallel_lab.compress.calibration import Inputs, collect
from parallel_lab.compress.quantization import Quantized, quantize
from parallel_lab.compress.quantized_linear import QuantizedLinear, replace_linears
from parallel_lab.model.data import Batch

TRIED = 20  # exponents


class ActivationAware(NamedTuple):
    """The codes of the weight times the factors, and the factors (in,)."""

    quantized: Quantized
    factors: Tensor

    def dequantize(self) -> Tensor:
        """What is multiplied with x itself, (out, in)."""
        return self.quantized.dequantize() / self.factors


@torch.no_grad()
def activation_aware(weight: Tensor, inputs: Inputs, bits: int = 4, **how: Any) -> ActivationAware:
    """The codes of `weight` (out, in) scaled for these inputs; `how` as in `quantize`."""
    tried = (scaled(weight, inputs, place / TRIED, bits, **how) for place in range(TRIED))
    return min(tried, key=lambda one: output_error(weight, one.dequantize(), inputs.moment))


def scaled(weight: Tensor, inputs: Inputs, exponent: float, bits: int, **how: Any) -> ActivationAware:
    """The same for one exponent; factors are divided by the root of their least times their greatest, as in AWQ."""
    factors = (inputs.size / inputs.rows).pow(exponent).clamp(min=1e-4)
    factors = (factors / (factors.min() * factors.max()).sqrt()).to(weight.dtype)
    return ActivationAware(quantize(weight * factors, bits, **how), factors)


def output_error(weight: Tensor, other: Tensor, moment: Tensor) -> float:
    """|x (w - ŵ)|^2 = tr((w - ŵ)^T x^T x (w - ŵ)): the squared error of the outputs, from `moment` (in, in) alone."""
    apart = (weight - other).double()
    return float((apart @ moment * apart).sum())


def activation_aware_model(model: nn.Module, batches: Iterable[Batch], bits: int = 4, **how: Any) -> nn.Module:
    """A copy of `model` whose linears are quantized, each for the inputs that it has in `model`.

    `batches` are of the training data; `how` as in `quantize`.

    Raises:
        ValueError: there are no batches.
    """
    seen = collect(model, batches)

    def made(name: str, linear: nn.Linear) -> QuantizedLinear:
        found = activation_aware(linear.weight, seen[name], bits, **how)
        return QuantizedLinear(found.quantized, linear.bias, found.factors)

    return replace_linears(model, made)
