"""GPTQ: quantize a weight column by column, and let the columns that are still free make up for each error.

Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers" (arXiv
2210.17323), sections 3 and 4. What counts is the error of the outputs, |x (w - ŵ)|^2 = tr((w - ŵ)^T curvature (w - ŵ))
with the curvature x^T x, not that of the weight. `weight` is the transpose of w, a column an input. When column i is
rounded and off by some error, the best change of the columns behind it is -error inverse_{i,i:} / inverse_ii, with the
inverse of the curvature that is left. The upper Cholesky factor of the inverse of all of it has all these rows at once,
and upper_ii^2 = inverse_ii. Where inputs are not correlated, the curvature is diagonal and GPTQ rounds to nearest.

    stored     as `quantization`: only the codes differ
    computed   O(in^3) for the factor, and O(out in^2) for the changes. The paper makes them in blocks of 128 columns,
               for speed alone; sorting the columns by the diagonal ("act-order") came later and is left out here.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from parallel_lab.compress.calibration import collect
from parallel_lab.compress.quantization import Per, Quantized, blocks, encode, min_max, scale_and_zero
from parallel_lab.compress.quantized_linear import QuantizedLinear, own_linears, put
from parallel_lab.model.data import Batch


@torch.no_grad()
def gptq(
    weight: Tensor,
    moment: Tensor,
    bits: int = 4,
    *,
    per: Per = "channel",
    group: int = 128,
    symmetric: bool = True,
    damp: float = 0.01,
) -> Quantized:
    """The codes of `weight` (out, in) for inputs whose x^T x is `moment` (in, in).

    `damp` times the mean of the diagonal of `moment` is added to it, so that it has an inverse. A group's range is
    found when its first column is reached, from what the columns before it have made of it.

    Raises:
        ValueError: `bits` is not in 2 to 8, `per` is unknown, or a group does not divide the inputs.
    """
    left = weight.detach().double().clone()  # the weight, as the errors so far have changed it
    upper = inverse_factor(moment.double(), damp)
    wide = blocks(weight, per, group).shape[1] if per == "group" else weight.shape[1]  # columns with ranges in common
    codes, grids = [], []
    for first in range(0, weight.shape[1], wide):
        rows = blocks(left[:, first : first + wide].to(weight.dtype), "tensor" if per == "tensor" else "channel", 0)
        grids.append(scale_and_zero(*min_max(rows), bits, symmetric))
        scale, zero = (each.expand(len(weight)) for each in grids[-1])
        for column in range(first, first + wide):
            rounded = encode(left[:, column, None], scale.double(), zero, bits, symmetric)
            error = (left[:, column] - rounded.dequantize()[:, 0]) / upper[column, column]
            left[:, column:] -= error.outer(upper[column, column:])
            codes.append(rounded.codes)
    scale, zero = (torch.stack(each, 1).flatten() for each in zip(*grids, strict=True))
    return Quantized(torch.cat(codes, 1), scale, zero, bits, symmetric)


def inverse_factor(moment: Tensor, damp: float) -> Tensor:
    """The upper factor, upper^T upper = moment^-1, (in, in); an input that is always 0 has an error that costs nothing.

    Row i of it over its diagonal is column i of the inverse of `moment` without what stands before i, over its first
    element.
    """
    diagonal = moment.diagonal()
    hessian = moment + torch.diag(damp * diagonal.mean() + (diagonal == 0).to(moment.dtype))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def gptq_model(model: nn.Module, batches: Iterable[Batch], bits: int = 4, **how: Any) -> nn.Module:
    """A copy of `model` whose linears are quantized in order, each for the inputs that the quantized ones before give.

    `batches` are of the training data and are run once for each linear; `how` as in `gptq`.

    Raises:
        ValueError: there are no batches.
    """
    model = deepcopy(model)
    for name, linear in own_linears(model).items():
        moment = collect(model, batches, only=name)[name].moment
        put(model, name, QuantizedLinear(gptq(linear.weight, moment, bits, **how), linear.bias))
    return model
