"""A mixture of experts: E feed-forward parts, of which each token goes through the K that a router chooses for it.

Shazeer et al. 2017, "Outrageously large neural networks", section 2; with the weights of Jiang et al. 2024, "Mixtral of
experts", section 2.1. The router gives each token a score for each expert, softmax(x w). The token goes through
the K experts with the largest scores, and their outputs are added up, weighted by those K scores divided by their sum:
only chosen experts compute, so that parameters grow and FLOPs a token do not. With K = 1 the weight is the score itself
(Fedus et al. 2021, "Switch Transformers", equation 2): divided by itself it would give the router no gradient.

Nothing is dropped: an expert takes as many tokens as choose it. Equal scores go to the expert with the lower number, so
that every rank and every device chooses alike. Two means against experts that all or none of the tokens choose:

- `bias`, one number an expert, is added to the scores for the choice alone, and never reaches the weights (Wang et al.
  2024, "Auxiliary-loss-free load balancing"; DeepSeek-AI 2024, "DeepSeek-V3", equation 16). It is moved from outside.
- the sequence-wise loss of DeepSeek-V3, section 2.1.2, equations 17 to 20: of each sequence of s tokens E / (K s)
  times the sum of count_j mean_j over experts j, where count_j tokens have j among their K largest scores, and mean_j
  is the mean score of j; then the mean over sequences. It is 1 where all is equal. A mean over sequences is the same
  however a batch is cut into microbatches and ranks; a product of means over the whole batch would not be.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.feed_forward import FeedForward


class MixtureOfExperts(nn.Module):
    """In the place of a feed-forward part, (batch, seq, width) to the same.

    Attributes:
        router: the linear that gives the scores, width to E, without bias.
        experts: E feed-forward parts.
        bias: (E,), added to the scores for the choice; a buffer, so that checkpoints have it.
        mix: what sends tokens through experts, a function of tokens (t, h), choices (t, K) and weights (t, K)
            that returns (t, h). Expert parallelism puts its own in its place.
        counts: how many tokens chose each expert in the last forward pass, int64 (E,).
        load: the same, summed over the forward passes in training mode since somebody last set it to zero.
        auxiliary: the balance loss of the last forward pass, a scalar without a graph.
        auxiliary_weight: by how much its gradient enters. No loss has to be added: the gradient joins that of the
            weights on their way back. A scaled loss does not scale it.
        auxiliary_sequences: how many sequences its mean is over; None for those of each forward pass. Microbatches and
            ranks whose gradients are added up need the number of the whole batch here.
        over_sequence: sums a tensor over those who hold parts of the same sequences; by default nobody else does.
    """

    load: Tensor
    bias: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.active = config.active_experts
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.experts: nn.Module = nn.ModuleList(FeedForward(config) for _ in range(config.experts))
        self.register_buffer("bias", torch.zeros(config.experts))
        self.register_buffer("load", torch.zeros(config.experts, dtype=torch.int64), persistent=False)
        self.mix: Callable[[Tensor, Tensor, Tensor], Tensor] = self.one_by_one
        self.counts = torch.zeros(config.experts, dtype=torch.int64)
        self.auxiliary = torch.zeros(())
        self.auxiliary_weight = 0.0
        self.auxiliary_sequences: float | None = None
        self.over_sequence: Callable[[Tensor], Tensor] = _alone

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, width) in and out."""
        scores = self.router(x).softmax(-1)  # (batch, seq, E)
        chosen = top(scores + self.bias, self.active)  # (batch, seq, K)
        weights = scores.gather(-1, chosen)
        if self.active > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = self._balanced(weights, scores)
        self._count(chosen)
        tokens = self.mix(x.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1))  # (batch * seq, width)
        return tokens.view_as(x)

    def one_by_one(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Expert after expert, each with the tokens that chose it, also where there are none."""
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts.children()):
            which, place = (chosen == number).nonzero(as_tuple=True)
            outputs = weights[which, place].unsqueeze(-1) * expert(tokens[which])
            mixed = mixed.index_add(0, which, outputs.to(mixed.dtype))
        return mixed

    def _count(self, chosen: Tensor) -> None:
        """A forward pass that is computed again counts again: in a sum that somebody only compares, that is no harm."""
        self.counts = counted(chosen.flatten(), len(self.bias))
        if self.training:
            self.load += self.counts

    def _balanced(self, weights: Tensor, scores: Tensor) -> Tensor:
        """The weights, which bring home the gradient of the balance loss; it is noted."""
        per_sequence = top(scores.detach(), self.active).flatten(1)  # (batch, seq K)
        counts = scores.new_zeros(len(scores), scores.shape[-1])
        counts.scatter_add_(1, per_sequence, torch.ones_like(per_sequence, dtype=scores.dtype))
        mine = scores.sum(1)  # (batch, E)
        counts, sums = self.over_sequence(torch.stack([counts, mine.detach()]))
        seq = counts.sum(-1, keepdim=True) / self.active
        factor = scores.shape[-1] / (self.active * seq**2) * counts
        self.auxiliary = (factor * sums).sum(-1).mean()
        if not self.auxiliary_weight:
            return weights
        share = self.auxiliary_weight / (self.auxiliary_sequences or len(scores))
        return _WithLoss.apply(weights, share * (factor * mine).sum())


def top(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` largest along the last dimension, the larger first.

    Of equal ones that comes first which stands first: `torch.topk` promises no order of equal ones.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def counted(chosen: Tensor, experts: int) -> Tensor:
    """How often each expert stands in `chosen` (...), int64 (experts,)."""
    return torch.zeros(experts, dtype=torch.int64, device=chosen.device).scatter_add_(
        0, chosen.flatten(), torch.ones_like(chosen.flatten())
    )


def _alone(x: Tensor) -> Tensor:
    return x


class _WithLoss(torch.autograd.Function):
    """x as it is; its backward pass is also that of `loss`, as if this had been added to what is trained on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (loss,) = ctx.saved_tensors
        return grads[0], torch.ones_like(loss)
