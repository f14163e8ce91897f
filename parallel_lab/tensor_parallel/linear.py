"""Column and row linear: one product cut along its output, and one cut along its input, over the ranks of a group.

Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism", section 3.
A linear layer y = x w is cut into w = [w_1 ... w_n] by columns: every rank reads the whole x and has its own columns of
y. Cut by rows, w = [w_1; ...; w_n], every rank reads its own columns of x, and y is the *sum* of what the ranks have.
So a column linear, any function of single elements, and a row linear need no communication in between. The first is
entered through `identity_all_reduce`, Megatron's f: the gradients of x are summed. The second is left through
`all_reduce_identity`, Megatron's g: a sum forward, and nothing backward.

    sharded                weights and, of a column linear, the bias; what lies between the two layers
    replicated             x and y, which are S bytes each; the bias of a row linear, added once, after the sum
    sent per rank          column: 0 forward, 2 (n-1)/n S backward. Row: 2 (n-1)/n S forward, 0 backward
    held per rank          1/n of the weights, their gradients and moments

torch stores a weight as (out, in), so columns of w are rows of `weight` here, and "column" is a cut along dim 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.collectives import autograd
from parallel_lab.collectives.passes import named
from parallel_lab.runtime.group import member

Group = dist.ProcessGroup | None
Crossing = Callable[[Tensor, Group], Tensor]  # a collective at the border of the cut part, with its conjugate


class Cut(NamedTuple):
    """How a parameter is cut: along `dim`, `size` long, into parts of equal length, each held by `copies` neighbors.

    The last parts are padded with zeros where `parts` does not divide `size`.
    """

    dim: int
    size: int
    parts: int
    copies: int = 1

    def length(self) -> int:
        """The length of one part, padding included."""
        return -(-self.size // self.parts)

    def part(self, whole: Tensor, rank: int) -> Tensor:
        """What rank `rank` holds of `whole`, as a new tensor."""
        shape = list(whole.shape)
        shape[self.dim] = self.length()
        first = min(self.size, rank // self.copies * self.length())
        piece = whole.narrow(self.dim, first, min(self.length(), self.size - first))
        held = whole.new_zeros(shape)
        held.narrow(self.dim, 0, piece.shape[self.dim]).copy_(piece)
        return held

    def whole(self, held: list[Tensor]) -> Tensor:
        """The parameter, from what all ranks hold, in their order."""
        return torch.cat(held[:: self.copies], self.dim).narrow(self.dim, 0, self.size)


def identity_all_reduce(x: Tensor, group: Group) -> Tensor:
    """Enters a part that is cut: x as it is; what the ranks say about its gradient is summed."""
    with named(group):
        return autograd.identity_all_reduce(x, group, built_in=True)


def all_reduce_identity(x: Tensor, group: Group) -> Tensor:
    """Leaves it: the sum of x over the ranks; the gradient of each is that of the sum."""
    with named(group):
        return autograd.all_reduce_identity(x, group, built_in=True)


def entered_by(module: nn.Module, enter: Crossing, group: Group) -> None:
    """Has the module's first argument go through `enter`, once for all column linears inside that read it."""
    module.register_forward_pre_hook(lambda _, args: (enter(args[0], group), *args[1:]))


class CutLinear(nn.Module):
    """What column and row linear share: this rank's part of the parameters of `linear`, under their old names."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, cuts: dict[str, Cut], group: Group) -> None:
        super().__init__()
        self.group, self.cuts = member(group), cuts
        self.register_parameter("bias", None)
        for name, whole in linear.named_parameters(recurse=False):
            part = cuts[name].part(whole.detach(), self.group.rank()) if name in cuts else whole.detach().clone()
            self.register_parameter(name, nn.Parameter(part, requires_grad=whole.requires_grad))

    def extra_repr(self) -> str:
        """The part and the whole."""
        cut, (rows, columns) = self.cuts["weight"], self.weight.shape
        return f"{columns} -> {rows}, one of {cut.parts} parts along dim {cut.dim}"


class ColumnLinear(CutLinear):
    """Whole x (..., in) to this rank's columns of the output (..., out/n).

    Args:
        linear: the whole layer, the same on every rank; a copy of this rank's part is kept.
        gather: return the whole output (..., out) instead, on every rank.
        copies: how many neighboring ranks hold the same part, so that there are n/copies parts. Their gradients are
            to be summed over the copies, `sum_replicated_gradients` does it.
        enter: what x goes through first, `identity_all_reduce` by default; None where a module outside has done it for
            several layers.
        group: whose ranks share the layer; by default all.

    Raises:
        ValueError: the output does not divide into the parts, or copies are to be gathered.
    """

    @keyword_only()
    def __init__(
        self,
        linear: nn.Linear,
        *,
        gather: bool = False,
        copies: int = 1,
        enter: Crossing | None = identity_all_reduce,
        group: Group = None,
    ) -> None:
        parts = divided("ranks in a group", member(group).size(), copies)
        divided("columns of the output", linear.out_features, parts)
        if gather and copies > 1:
            raise ValueError(f"gather=True needs ranks with a part each, and {copies} copies hold the same")
        cut = Cut(0, linear.out_features, parts, copies)
        super().__init__(linear, {"weight": cut, "bias": cut}, group)
        self.gather, self.enter = gather, enter

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out/n), or to (..., out) with `gather`."""
        x = self.enter(x, self.group) if self.enter else x
        y = F.linear(x, self.weight, self.bias)
        if not self.gather:
            return y
        with named(self.group):
            return autograd.all_gather_split(y, -1, self.group, built_in=True)


class RowLinear(CutLinear):
    """This rank's columns of x (..., in/n) to the whole output (..., out), the same on every rank.

    Args:
        linear: the whole layer, the same on every rank; a copy of this rank's part is kept.
        leave: what makes the sum, `all_reduce_identity` by default.
        group: whose ranks share the layer; by default all.

    Raises:
        ValueError: the input does not divide by the number of ranks.
    """

    @keyword_only()
    def __init__(self, linear: nn.Linear, *, leave: Crossing = all_reduce_identity, group: Group = None) -> None:
        divided("columns of the input", linear.in_features, member(group).size())
        super().__init__(linear, {"weight": Cut(1, linear.in_features, member(group).size())}, group)
        self.leave = leave

    def forward(self, x: Tensor) -> Tensor:
        """(..., in/n) to (..., out). The bias comes after the sum, or it would be added n times."""
        y = self.leave(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


def divided(what: str, size: int, parts: int) -> int:
    """`size / parts`.

    Raises:
        ValueError: it is no whole number.
    """
    if size % parts:
        raise ValueError(f"{size} {what} do not divide by {parts}: nothing was cut. Choose a divisor of {size}")
    return size // parts
