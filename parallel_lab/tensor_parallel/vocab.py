"""The vocabulary cut over the ranks: embedding, output layer and cross-entropy, without ever gathering the logits.

Shoeybi et al. 2019, "Megatron-LM", section 3, cuts the embedding table by tokens and fuses the output layer with the
loss. Rank r of n has ceil(V/n) tokens, from r ceil(V/n) on, or what is left of V. It looks up its own tokens and gives
zeros for all others, and the sum over the ranks is the embedding. It computes the logits of its own tokens, and of the
loss

    loss = log sum_j exp(logit_j - max) - (logit_target - max),        max = max_j logit_j, over all tokens j

each rank has a part: a maximum first, which keeps exp from overflowing, then a sum of exponentials and the target's
logit, which is zero where the target is another rank's token.

    sharded                the table and the output layer (tied or not), the logits, and the gradient of the logits
    replicated             tokens, targets, the loss
    sent per rank          embedding: 2 (n-1)/n S forward, 0 backward. Loss of t tokens: 6 (n-1)/n t numbers forward, 0
                           backward, where gathering the logits would send (n-1)/n t V
    held per rank          1/n of the table, t ceil(V/n) logits

Rows that pad the table to n ceil(V/n) tokens are zeros. They are never multiplied with, so no loss and no gradient sees
them.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.collectives.passes import named
from parallel_lab.runtime.group import member
from parallel_lab.tensor_parallel.linear import (
    Crossing,
    Cut,
    CutLinear,
    Group,
    all_reduce_identity,
    identity_all_reduce,
)


def own_tokens(vocab: int, group: dist.ProcessGroup) -> range:
    """The tokens of this rank; none where the ranks before it have all."""
    length, first = -(-vocab // group.size()), group.rank() * -(-vocab // group.size())
    return range(min(vocab, first), min(vocab, first + length))


def _require_inside(what: str, tokens: Tensor, vocab: int) -> None:
    if tokens.numel() and bool(((tokens < 0) | (tokens >= vocab)).any()):
        low, high = int(tokens.min()), int(tokens.max())
        raise ValueError(f"{what} go from {low} to {high}: vocab={vocab}, so expected 0 to {vocab - 1}")


class VocabEmbedding(nn.Module):
    """Tokens (...) to vectors (..., width), the same on every rank, from a table of which each rank has its tokens.

    Args:
        embedding: the whole table, the same on every rank; a copy of this rank's part is kept.
        leave: what makes the sum, `all_reduce_identity` by default.
        group: whose ranks share the table; by default all.

    Raises:
        ValueError: the embedding has a padding_idx, a max_norm, sparse or scaled gradients.
    """

    @keyword_only()
    def __init__(self, embedding: nn.Embedding, *, leave: Crossing = all_reduce_identity, group: Group = None) -> None:
        super().__init__()
        options = ("padding_idx", "max_norm", "scale_grad_by_freq", "sparse")
        values = [(name, getattr(embedding, name)) for name in options]
        if found := [name for name, value in values if value is not None and value is not False]:
            raise ValueError(f"an embedding with {', '.join(found)} cannot be cut by tokens: nothing was cut")
        self.group, self.leave, self.vocab = member(group), leave, embedding.num_embeddings
        self.cuts = {"weight": Cut(0, self.vocab, self.group.size())}
        self.own, whole = own_tokens(self.vocab, self.group), embedding.weight
        part = self.cuts["weight"].part(whole.detach(), self.group.rank())
        self.weight = nn.Parameter(part, requires_grad=whole.requires_grad)

    def partial(self, tokens: Tensor) -> Tensor:
        """The vectors of this rank's tokens, and zeros for all others: (...) to (..., width).

        Raises:
            ValueError: a token is not in the vocabulary.
        """
        _require_inside("tokens", tokens, self.vocab)
        place, foreign = _places(tokens, self.own)
        return F.embedding(place, self.weight).masked_fill(foreign.unsqueeze(-1), 0)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) to (..., width), the sum over the ranks."""
        return self.leave(self.partial(tokens), self.group)


class VocabHead(CutLinear):
    """Whole x (..., width) to the logits of this rank's tokens (..., len(own)): a column linear of unequal parts.

    `weight` is padded to equal parts and may be that of a `VocabEmbedding`: then assign it.
    """

    weight: Tensor  # (ceil(V/n), width)
    bias: Tensor | None

    @keyword_only()
    def __init__(self, linear: nn.Linear, *, enter: Crossing = identity_all_reduce, group: Group = None) -> None:
        cut = Cut(0, linear.out_features, member(group).size())
        super().__init__(linear, {"weight": cut, "bias": cut}, group)
        self.enter, self.own = enter, own_tokens(linear.out_features, self.group)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., len(own))."""
        rows = len(self.own)
        bias = None if self.bias is None else self.bias[:rows]
        return F.linear(self.enter(x, self.group), self.weight[:rows], bias)


def _places(tokens: Tensor, own: range) -> tuple[Tensor, Tensor]:
    """Where each token stands among one's own, 0 for those of other ranks; and which are those."""
    place = tokens - own.start
    foreign = (place < 0) | (place >= len(own))
    return place.masked_fill(foreign, 0), foreign


class _Loss(torch.autograd.Function):
    """The loss of each target; backward, each rank has the gradient of its own logits, and nothing is sent."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, vocab: int, smoothing: float, group: Any) -> Tensor:
        own = own_tokens(vocab, group)
        place, foreign = _places(targets, own)
        top = logits.amax(-1) if len(own) else logits.new_full(targets.shape, -torch.inf)
        with named(group, "loss"):
            dist.all_reduce(top, dist.ReduceOp.MAX, group)
        shifted = logits - top.unsqueeze(-1)  # (tokens, own)
        wanted = shifted.new_zeros(targets.shape)
        if len(own):
            wanted = shifted.gather(-1, place.unsqueeze(-1)).squeeze(-1).masked_fill(foreign, 0)
        if smoothing:  # every token is the target, by an equal share
            wanted = (1 - smoothing) * wanted + smoothing / vocab * shifted.sum(-1)
        share = shifted.exp_()
        both = torch.stack([share.sum(-1), wanted])
        with named(group, "loss"):
            dist.all_reduce(both, group=group)
        total, wanted = both
        share /= total.unsqueeze(-1)  # the softmax of all logits, this rank's part of it
        ctx.save_for_backward(share, place, foreign)
        ctx.smoothing, ctx.vocab = smoothing, vocab
        return total.log() - wanted

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        share, place, foreign = ctx.saved_tensors
        gradient = share - ctx.smoothing / ctx.vocab if ctx.smoothing else share.clone()
        if share.shape[-1]:
            hit = (~foreign).to(share.dtype).mul_(ctx.smoothing - 1)
            gradient.scatter_add_(-1, place.unsqueeze(-1), hit.unsqueeze(-1))
        return gradient.mul_(grads[0].unsqueeze(-1)), None, None, None, None


def vocab_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    vocab: int,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    group: Group = None,
) -> Tensor:
    """`torch.nn.functional.cross_entropy` of logits of which each rank has those of its tokens; the same on all ranks.

    Args:
        logits: (..., len(own)), as `VocabHead` returns them, or (..., ceil(V/n)) with padding at the end. 16-bit logits
            are taken in float32.
        targets: (...), int64, tokens of the whole vocabulary, the same on every rank.
        vocab: V, how many tokens there are in all.
        ignore_index: a target that does not count.
        label_smoothing: the share of each target that all V tokens get alike.
        reduction: `mean` over the targets that count, `sum`, or `none`.
        group: whose ranks share the vocabulary; by default all.

    Raises:
        ValueError: the logits are not this rank's part, the targets have another shape or are not in the vocabulary,
            or the smoothing or the reduction makes no sense.
    """
    group = member(group)
    own = _checked(logits, targets, vocab, label_smoothing, reduction, group)
    ignored = targets == ignore_index
    targets = targets.masked_fill(ignored, 0)
    _require_inside("targets", targets, vocab)
    logits = logits[..., : len(own)]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    losses = _Loss.apply(logits, targets, vocab, label_smoothing, group)
    losses = losses.masked_fill(ignored, 0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / (~ignored).sum()


def _checked(logits: Tensor, targets: Tensor, vocab: int, smoothing: float, reduction: str, group: Any) -> range:
    """This rank's tokens, once the arguments make sense."""
    n, rank, own, width = group.size(), group.rank(), own_tokens(vocab, group), logits.shape[-1]
    if width not in (len(own), -(-vocab // n)):
        whole = ": these are the gathered ones; give each rank its own" if width == vocab else ""
        raise ValueError(
            f"rank {rank} of {n} has {width} logits a token, and {len(own)} of {vocab} tokens are its own{whole}"
        )
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing={smoothing}: expected a number from 0 to 1")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r}: expected mean, sum or none")
    return own
