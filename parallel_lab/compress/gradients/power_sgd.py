"""PowerSGD: each matrix of gradients travels as two thin ones, whose product is the best that so few columns can do.

Vogels, Karimireddy and Jaggi 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
algorithms 1 and 2. One step of the power method from the right factor of the step before: for a matrix g of (rows,
columns) and rank R,

    left = g right          all-reduced, then made orthonormal: (rows, R)
    right = g^T left        all-reduced: (columns, R)
    g ~ left right^T        the mean over the ranks, and not of what each of them would have made

Both products are linear in g, so all-reduces add them up on the way, and what is sent does not grow with the ranks.
Since gradients change slowly, the right factor of the last step is a good beginning (warm start). The residual is what
was due less left right^T with the factors of all ranks, as PyTorch's `powerSGD_hook` has it. What is no matrix, or too
small to gain, travels whole, with the left factors. (The paper calls them `P` and `Q`.)

    sent per rank and step 2 (n-1)/n e (R (rows + columns) a matrix, and what travels whole), e bytes a number
    held per rank          a residual per element, and R columns numbers for each matrix
"""

from collections.abc import Mapping, Sequence
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import whole
from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.compress.gradients.error_feedback import Bucket, Compressed, Exchange, Result
from parallel_lab.compress.gradients.wire import Sizes


class PowerSGD(Compressed):
    """A hook of DDP: `DDP(model, hook=PowerSGD(rank=2))`.

    Args:
        rank: the columns of either factor.
        min_compression_rate: a matrix that would not become so many times smaller travels whole.
        warm_start: False begins with a new random right factor in each step.
        start: so many steps at first send everything.
        error_feedback: False forgets what the two thin matrices leave out.
        seed: of the first right factor; the same on all ranks.
    """

    def __init__(
        self,
        rank: int = 1,
        *,
        min_compression_rate: float = 2.0,
        warm_start: bool = True,
        start: int = 0,
        error_feedback: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(error_feedback=error_feedback, seed=seed)
        self.rank, self.start = whole("rank", rank), whole("start", start, least=0)
        self.min_compression_rate, self.warm_start = min_compression_rate, warm_start

    def exchange(self, group: dist.ProcessGroup, vector: Tensor, bucket: Bucket) -> Exchange:
        """An all-reduce of all left factors and of what travels whole, and one of all right factors."""
        n, dtype = group.size(), bucket.flat.dtype
        mean = bucket.flat if vector.dtype == dtype else torch.empty_like(vector)
        (matrices, rest), (approximations, others) = self._cut(vector, bucket), self._cut(mean, bucket)
        rights = self._first(matrices, bucket)

        lefts = [g.new_empty(len(g), right.shape[1]) for g, right in zip(matrices.values(), rights, strict=True)]
        for g, right, left in zip(matrices.values(), rights, lefts, strict=True):
            torch.mm(g, right, out=left)
        message = end_to_end([*lefts, *rest]).to(dtype)
        yield dist.all_reduce(message, group=group, async_op=True)
        put_back(message, [*lefts, *others])

        for left in lefts:
            orthonormalize(left)
        for g, left, right in zip(matrices.values(), lefts, rights, strict=True):
            torch.mm(g.T, left, out=right)
        if rights:
            message = end_to_end(rights).to(dtype)
            yield dist.all_reduce(message, group=group, async_op=True)
            put_back(message, rights)

        for whole_one in others:
            whole_one.div_(n)
        for left, right, product in zip(lefts, rights, approximations.values(), strict=True):
            torch.mm(left, right.div_(n).T, out=product)
        if self.error_feedback:
            vector -= mean
            for each in rest:  # it has travelled whole
                each.zero_()
        return Result(mean, vector if self.error_feedback else None, dict(zip(matrices, rights, strict=True)))

    def _cut(self, vector: Tensor, bucket: Bucket) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Views of a vector of the bucket: the matrices that are compressed, by name, and what travels whole."""
        matrices, others = {}, []
        parts = vector.split([parameter.numel() for parameter in bucket.parameters])
        for name, parameter, part in zip(bucket.names, bucket.parameters, parts, strict=True):
            if self.step > self.start and self.compresses(parameter.shape):
                matrices[name] = part.view(len(parameter), -1)
            else:
                others.append(part)
        return matrices, others

    def _first(self, matrices: Mapping[str, Tensor], bucket: Bucket) -> list[Tensor]:
        """The orthonormal right factor (columns, R) of each matrix: that of the step before, or a random one."""
        chance, rights = self.generator(bucket), []
        for name, g in matrices.items():
            shape = g.shape[1], min(self.rank, *g.shape)
            right = self.kept.get(name) if self.warm_start else None
            if right is None or right.shape != shape:
                right = torch.randn(shape, generator=chance, dtype=g.dtype, device=g.device)
            rights.append(orthonormalize(right.clone()))
        return rights

    def compresses(self, shape: Sequence[int]) -> bool:
        """Whether a parameter of this shape travels as two thin matrices."""
        return len(shape) > 1 and self.thin(shape) * self.min_compression_rate < prod(shape)

    def thin(self, shape: Sequence[int]) -> int:
        """R (rows + columns) for a parameter of this shape, of which the first dimension makes the rows."""
        rows, columns = shape[0], prod(shape[1:])
        return min(self.rank, rows, columns) * (rows + columns)

    def sent_bytes(self, elements: Sizes, n: int, item_bytes: int = 4) -> float:
        """2 (n-1)/n e (sum of R (rows + columns), and what travels whole), for parameters of these shapes.

        Raises:
            TypeError: `elements` is a number, which says nothing of matrices.
        """
        if isinstance(elements, int):
            raise TypeError(f"elements={elements}: PowerSGD sends by shape, give [p.shape for p in model.parameters()]")
        sent = sum(self.thin(shape) if self.compresses(shape) else prod(shape) for shape in map(tuple, elements))
        return 2 * (n - 1) / n * sent * item_bytes


def orthonormalize(matrix: Tensor) -> Tensor:
    """Makes the columns of `matrix` (rows, R) orthonormal, in place: Gram-Schmidt, or QR for more than two of them."""
    if matrix.shape[1] > 2:
        return matrix.copy_(torch.linalg.qr(matrix).Q)
    smallest = torch.finfo(matrix.dtype).tiny  # a column of zeros stays one
    first, *others = matrix.split(1, dim=1)
    first.div_(first.norm().clamp(min=smallest))
    for second in others:
        second.sub_(first * (first * second).sum())
        second.div_(second.norm().clamp(min=smallest))
    return matrix
