"""What the replicas of a model do together: they start equal, and they take a weighted mean.

A rank that stands for b_r samples (or tokens) contributes b_r times its tensors. Its b_r travels as one more number of
the same message, so shares may differ from rank to rank and from round to round. With n ranks and N numbers each rank
sends 2 (n-1)/n (N + 1) numbers, as a ring does.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.finite import require_finite
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.runtime.group import member
from parallel_lab.trace import span


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of `model` that are trained; tied ones once."""
    return [p for p in model.parameters() if p.requires_grad]


def start_equal(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Gives every rank the parameters and buffers of rank 0, once all have been found to have the same model."""
    group = member(group)
    check_same_model(model, group)
    broadcast_tensors([*model.parameters(), *model.buffers()], group)


class Stepper:
    """One rank's replica and the optimizer that steps it; a strategy without servers is how it uses a gradient.

    The model starts from rank 0's weights on all ranks; the optimizer's state stays each rank's own. Every rank calls
    `step` equally often, one that has no batch left with `weight=0`, and then `finish`.
    """

    @keyword_only()
    def __init__(self, model: nn.Module, optimizer: Optimizer, *, group: dist.ProcessGroup | None = None) -> None:
        self.model, self.optimizer, self.group = model, optimizer, group
        self.steps = 0  # taken so far
        self._known = set(model.parameters())
        self._start()

    def step(self, weight: float = 1) -> object:
        """Makes use of the gradients in `.grad`, the mean over `weight` samples or tokens; with 0 they do not count.

        Raises:
            ValueError: a gradient is not finite, or a parameter is new; the weights are left as they were.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Ends the training; where replicas are equal after each step, nothing is left to do."""

    def _start(self) -> None:
        start_equal(self.model, self.group)

    def _require_known(self) -> None:
        """Refuses a parameter that was added later: the ranks have never agreed on it."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and parameter not in self._known:
                made = f"was not to be trained when {type(self).__name__} was made"
                raise ValueError(f"{name} {made}: change the model before that")

    def _require_finite(self) -> None:
        require_finite(self.model, f"rank {dist.get_rank(self.group)}, step {self.steps}")

    def _update(self) -> None:
        with span("update", mb=self.steps):
            self.optimizer.step()


def weighted_mean(tensors: Sequence[Tensor], weight: float, group: dist.ProcessGroup | None) -> list[Tensor] | None:
    """The mean of `tensors` over all ranks, in which this one counts `weight`; None if no rank stands for any samples.

    Half-precision tensors travel as float32, which counts exactly up to 16 million samples.
    """
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    # A rank without samples sends zeros: 0 times its tensors would turn an infinity into NaN.
    parts = [t.detach().flatten().to(dtype) * weight if weight else torch.zeros_like(t).flatten() for t in tensors]
    flat = torch.cat([*parts, torch.tensor([weight], dtype=dtype, device=tensors[0].device)])
    dist.all_reduce(flat, group=group)
    if not flat[-1]:
        return None
    pieces = (flat[:-1] / flat[-1]).split([t.numel() for t in tensors])
    return [piece.view(t.shape) for piece, t in zip(pieces, tensors, strict=True)]
