"""Pruning at once, with what the layer's inputs say: SparseGPT makes up for what it removes, Wanda only weighs it.

Frantar and Alistarh 2023, "SparseGPT", section 3 and algorithm 1; Sun et al. 2023, "A simple and effective pruning
approach for large language models" (Wanda), equation 1; both rest on Hassibi and Stork 1993, "Optimal brain surgeon".
Three ideas:

- What counts is what a layer puts out: |x (w - ŵ)|^2 over the inputs x of some calibration batches. Its curvature is
  x^T x, the same for all outputs: `moment`, (columns, columns), however many tokens there were. `weight` is (rows,
  columns), the transpose of w: a row is an output, a column an input.
- To set the weight w_i of a row to zero costs w_i^2 / inverse_ii, with the inverse of the curvature, if the others make
  up for it in the best way, which changes them by -w_i / inverse_ii times column i of the inverse. SparseGPT goes
  through the columns from left to right and changes those to the right alone; then one Cholesky factor of the inverse
  has all inverses that it needs.
- Wanda takes |w_i| times the norm of the input that it meets, compares within a row, and changes no weight.

    stored    as other masks; nothing is trained
    computed  SparseGPT O(columns^3 + rows columns^2) a layer, Wanda O(rows columns)
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from parallel_lab.compress.calibration import collect
from parallel_lab.compress.gptq import inverse_factor
from parallel_lab.compress.pruning import Masks, largest, n_m, prunable
from parallel_lab.model.data import Batch

Pruned = tuple[Tensor, Tensor]  # the new weight, and its mask


def sparse_gpt(
    weight: Tensor,
    moment: Tensor,
    sparsity: float = 0.5,
    *,
    pattern: tuple[int, int] | None = None,
    block: int = 128,
    damping: float = 0.01,
) -> Pruned:
    """The weight (rows, columns) that is pruned to `sparsity` and made up for, and its mask.

    Args:
        weight: stays as it is.
        moment: x^T x of the layer's inputs, (columns, columns), in the dtype to compute in.
        sparsity: of each block of columns.
        pattern: (2, 4) keeps 2 of 4 neighbors instead.
        block: so many columns choose together what goes. Sums to the right of them wait for the end of a block.
        damping: this share of the mean diagonal is added to the diagonal, so that it can be inverted.

    Raises:
        ValueError: `moment` does not fit, `pattern` does not divide a block, or `sparsity` is not in [0, 1).
    """
    columns = _checked(weight, moment, sparsity)
    if pattern and (block % pattern[1] or columns % pattern[1]):
        raise ValueError(f"groups of {pattern[1]} do not divide {columns} columns in blocks of {block}")
    left, kept = weight.detach().to(moment, copy=True), torch.ones_like(weight, dtype=torch.bool)
    root = inverse_factor(moment, damping)
    for start in range(0, columns, block):
        here, right = slice(start, start + block), slice(start + block, columns)
        part, corner, mask = left[:, here], root[here, here], kept[:, here]
        if not pattern:
            mask[:] = largest((part / corner.diag()).square(), sparsity)
        errors = _made_up(part, corner, mask, pattern)
        left[:, right] -= errors @ root[here, right]
    return left.masked_fill_(~kept, 0).to(weight.dtype), kept


def _made_up(part: Tensor, corner: Tensor, mask: Tensor, pattern: tuple[int, int] | None) -> Tensor:
    """Prunes the columns of `part` one after another, in place; w_i / corner_ii of each that went, 0 elsewhere."""
    errors = torch.zeros_like(part)
    for c in range(part.shape[1]):
        if pattern and c % pattern[1] == 0:
            group = slice(c, c + pattern[1])
            mask[:, group] = n_m(part[:, group] / corner.diag()[group], *pattern)
        errors[:, c] = part[:, c].masked_fill(mask[:, c], 0) / corner[c, c]
        part[:, c:] -= errors[:, c].outer(corner[c, c:])
    return errors


def wanda(weight: Tensor, moment: Tensor, sparsity: float = 0.5, *, pattern: tuple[int, int] | None = None) -> Pruned:
    """The weight without the least |w_i| |x_i| of each row, or with what `pattern` keeps, and its mask.

    Raises:
        ValueError: `moment` does not fit, `pattern` does not divide a row, or `sparsity` is not in [0, 1).
    """
    columns = _checked(weight, moment, sparsity)
    scores = weight.detach().to(moment).abs() * moment.diag().sqrt()
    if pattern:
        kept = n_m(scores, *pattern)
    else:
        least = scores.topk(round(sparsity * columns), dim=1, largest=False).indices
        kept = torch.ones_like(scores, dtype=torch.bool).scatter_(1, least, False)
    return weight.detach().masked_fill(~kept, 0), kept


def one_shot(
    model: nn.Module, batches: Iterable[Batch], method: Callable[..., Pruned] = sparse_gpt, **settings: Any
) -> Masks:
    """Prunes each linear of `model` in place, in the order of their names; the masks.

    The inputs of a layer are those that come when the layers before it are pruned already, as in both papers. So it is
    one pass over `batches` for each layer. They are training data: never those that the result is judged on.

    Raises:
        ValueError: there are no batches.
    """
    masks, several = Masks(), list(batches)
    for name, weight in prunable(model).items():
        layer = name.removesuffix("weight").rstrip(".")
        if isinstance(model.get_submodule(layer), nn.Linear):
            moment = collect(model, several, only=layer)[layer].moment
            changed, masks[name] = method(weight, moment, **settings)
            with torch.no_grad():
                weight.copy_(changed)
    return masks


def _checked(weight: Tensor, moment: Tensor, sparsity: float) -> int:
    """The columns."""
    if weight.dim() != 2 or moment.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(
            f"a moment of {tuple(moment.shape)} for a weight of {tuple(weight.shape)}: expected its columns twice"
        )
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity of {sparsity}: expected the share of weights that go, at least 0 and less than 1")
    return weight.shape[1]
