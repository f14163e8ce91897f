"""A sum of many numbers is rounded after each addition, so its last digits depend on the order: that of ring, of tree.

Higham 2002, "Accuracy and stability of numerical algorithms", section 4.2: every order of additions is a tree, and the
error is at most gamma(height) sum |term|, where the height is the most additions that a term goes through. A ring adds
one rank after another, height n - 1; a tree adds neighbors, height log2 n. Here the additions of a collective are done
in one process, as its plan has them: to the last bit what real ranks come to.

A sum that is the same in every order, `reproducible_sum`, adds whole numbers, whose sum is exact. As in Demmel and
Nguyen 2013, "Fast reproducible floating-point summation", all are cut at the same absolute place, which the largest of
them decides. That the largest is known costs a message of its own; bins that are fixed beforehand, which these authors
take in 2015, would save it.

    sent per step          reproducible: an all-reduce of the largest, 4 bytes an element, and one of int64, 8 bytes:
                           3 times that of float32
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.collectives import ChunkPlan, plan_for
from parallel_lab.plan import RECEIVING, Op
from parallel_lab.precision.formats import exponent_of, power_of_two
from parallel_lab.precision.rounding import kahan_sum
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

WHOLE_BITS = 62  # of an int64, without the sign and a bit to spare


def left_to_right(xs: Tensor) -> Tensor:
    """The sum over the rows of (n, elements), from the first to the last."""
    total = xs[0].clone()
    for x in xs[1:]:
        total += x
    return total


def pairwise(xs: Tensor) -> Tensor:
    """The sum of neighbors, then of their neighbors: ceil(log2 n) additions deep."""
    while len(xs) > 1:
        pairs = xs[0 : len(xs) // 2 * 2 : 2] + xs[1::2]
        xs = torch.cat([pairs, xs[len(xs) // 2 * 2 :]])
    return xs[0].clone()


def over_ranks(xs: Tensor, plan: ChunkPlan) -> Tensor:
    """What an all-reduce by `plan` comes to on rank 0, where row r of (n, elements) is what rank r has."""
    held, cuts = xs.clone(), [slice(*bounds) for bounds in plan.bounds(xs.shape[1])]
    receives: dict[int, list[Op]] = {number: [] for number in range(plan.rounds)}
    for op in plan:
        if op.kind in RECEIVING:
            receives[op.round].append(op)
    for ops in receives.values():  # all that is sent in a round leaves before anything of that round arrives
        arriving = [held[op.peer, cuts[op.part]].clone() for op in ops]
        for op, chunk in zip(ops, arriving, strict=True):
            own = held[op.rank, cuts[op.part]]
            own.copy_(own + chunk if op.kind == "recv_reduce" else chunk)
    return held[0]


def ring(xs: Tensor) -> Tensor:
    """As a ring all-reduce: the i-th of n chunks is added up from rank i + 1 round to rank i."""
    chunks = xs.tensor_split(len(xs), 1)
    return torch.cat([left_to_right(chunk.roll(-last - 1, 0)) for last, chunk in enumerate(chunks)])


def tree(xs: Tensor) -> Tensor:
    """As an all-reduce over a binomial tree."""
    return over_ranks(xs, plan_for("all_reduce", "tree", len(xs)))


def kahan(xs: Tensor) -> Tensor:
    """From the first to the last, with what each addition lost."""
    return kahan_sum(xs)


ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "left to right": left_to_right,
    "ring": ring,
    "pairwise": pairwise,
    "tree": tree,
    "kahan": kahan,
}


def relative_error(total: Tensor, xs: Tensor) -> Tensor:
    """|total - sum| / sum |term| for each element, against the sum in float64: what the bounds of `formulas` bound."""
    exact = xs.double()
    return (total.double() - exact.sum(0)).abs() / exact.abs().sum(0)


@keyword_only()
def row_split(x: Tensor, weight: Tensor, ways: int, *, compute: torch.dtype, reduction: torch.dtype) -> Tensor:
    """x @ weight as `ways` ranks of a row-cut linear compute it: partial products, and their sum over the ranks.

    Each partial product comes out in `compute`; the sum is taken from rank to rank in `reduction`. A *column* cut has
    no such sum, and is that of one process to the last bit where the product's kernel adds in the same order.

    Args:
        x: (rows, inner).
        weight: (inner, columns); x's columns and its rows are cut over the ranks.
        ways: how many ranks.
        compute: the dtype of the products.
        reduction: the dtype of their sum.
    """
    parts = zip(x.to(compute).tensor_split(ways, 1), weight.to(compute).tensor_split(ways, 0), strict=True)
    return left_to_right(torch.stack([(a @ b).to(reduction) for a, b in parts]))


def reproducible_sum(tensors: Sequence[Tensor]) -> Tensor:
    """The sum, the same bits in every order and grouping of the tensors; off by about half a step of its dtype.

    NaN where one of the numbers is not finite.
    """
    xs = torch.stack(list(tensors))
    largest = xs.abs().amax(0)
    return _number(_whole(xs, largest, len(xs)).sum(0), largest, len(xs)).to(xs.dtype)


@keyword_only()
@torch.no_grad()
def reproducible_all_reduce(tensor: Tensor, *, group: dist.ProcessGroup | None = None) -> None:
    """Replaces `tensor` by its `reproducible_sum` over the ranks: the same bits whatever the algorithm.

    Another number of ranks adds other numbers, and is another sum, unless the ranks only share out the same ones.
    """
    group = member(group)
    largest = tensor.abs().nan_to_num(torch.inf, torch.inf)
    with tag(phase="largest"):
        dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    whole = _whole(tensor, largest, group.size())
    with tag(phase="sum"):
        dist.all_reduce(whole, group=group)
    tensor.copy_(_number(whole, largest, group.size()))


def _shift(largest: Tensor, n: int) -> Tensor:
    """By what power of two numbers up to `largest` are multiplied, so that n of them fit into an int64."""
    room = WHOLE_BITS - (n - 1).bit_length() - 1
    return (room - exponent_of(largest.nan_to_num(1.0, 1.0))).clamp(-1000, 1000)


def _whole(x: Tensor, largest: Tensor, n: int) -> Tensor:
    return (x.double().nan_to_num(0.0, 0.0, 0.0) * power_of_two(_shift(largest, n))).round().to(torch.int64)


def _number(whole: Tensor, largest: Tensor, n: int) -> Tensor:
    return (whole.double() * power_of_two(-_shift(largest, n))).masked_fill(~largest.isfinite(), torch.nan)
