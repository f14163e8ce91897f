"""What the replicas of a model do together: they start equal, and they take a weighted mean.

A rank that stands for w samples (or tokens) contributes w times its tensors. Its w travels as one more number of the
same message, so shares may differ from rank to rank and from round to round. With n ranks and P numbers each rank sends
2 (n-1)/n (P + 1) numbers, as a ring does.
"""

from collections.abc import Container, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.runtime.group import member


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of `model` that are trained; tied ones once."""
    return [p for p in model.parameters() if p.requires_grad]


def start_equal(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Gives every rank the parameters and buffers of rank 0, once all have been found to have the same model.

    Args:
        model: of this rank; overwritten.
        group: the ranks; the default group if None.

    Raises:
        ValueError: this rank has another model than most.
    """
    group = member(group)
    check_same_model(model, group)
    broadcast_tensors([*model.parameters(), *model.buffers()], group)


def require_known(model: nn.Module, known: Container[nn.Parameter], what: str) -> None:
    """Refuses to step a model that has changed: the ranks have never agreed on the new parameter.

    Args:
        model: of this rank.
        known: its parameters when the stepper was made.
        what: the stepper's name.

    Raises:
        ValueError: a parameter that is to be trained is none of them.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter not in known:
            raise ValueError(f"{name} was not to be trained when {what} was made: change the model before that")


class Mean(NamedTuple):
    """A mean under way.

    Attributes:
        flat: (P + 1,), the weighted tensors and the weight; the sums over ranks once `work` is done.
        work: the handle of the all-reduce.
        shapes: of the tensors.
    """

    flat: Tensor
    work: dist.Work
    shapes: tuple[torch.Size, ...]

    def wait(self) -> list[Tensor] | None:
        """Blocks, and returns the means as views of one buffer; None if no rank stands for any samples."""
        self.work.wait()
        total = self.flat[-1]
        if not total:
            return None
        pieces = (self.flat[:-1] / total).split([shape.numel() for shape in self.shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def start_mean(tensors: Sequence[Tensor], weight: float, group: dist.ProcessGroup | None = None) -> Mean:
    """Starts the mean of `tensors` over all ranks.

    Args:
        tensors: of this rank; half-precision ones travel as float32, which counts exactly up to 16 million samples.
        weight: how much this rank counts.
        group: the ranks; the default group if None.
    """
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    # A rank without samples sends zeros: 0 times its tensors would turn an infinity into NaN.
    parts = [t.detach().flatten().to(dtype) * weight if weight else torch.zeros_like(t).flatten() for t in tensors]
    flat = torch.cat([*parts, torch.tensor([weight], dtype=dtype, device=tensors[0].device)])
    work = dist.all_reduce(flat, group=group, async_op=True)
    assert work is not None
    return Mean(flat, work, tuple(t.shape for t in tensors))
