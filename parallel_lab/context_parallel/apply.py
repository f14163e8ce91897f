"""A whole GPT whose ranks share each sequence: attention is exchanged, and everything else looks at single tokens.

Liu et al. 2023, "Ring attention with blockwise transformers" (arXiv 2310.01889), or Jacobs et al. 2023, "DeepSpeed
Ulysses" (arXiv 2309.14509). Norms, linears, feed-forward parts, embedding and head work on each token by itself, so a
rank that has 1/n of the tokens runs them unchanged, with 1/n of the activations. Only `Attention.attend` looks further.

    sharded                tokens, targets, positions, all activations
    replicated             parameters, gradients and moments; shard those over the same ranks by ZeRO
    sent per step and rank what `ring_attention` or `ulysses` says a block; the gradients once, as in data parallelism
    held per rank          1/n of the activations

Three things go wrong without a word. A rank's tokens do not stand at 0, 1, 2: `positions` says where, and a model that
needs them refuses to run without. Targets must be shifted before the sequence is cut. And the loss is the mean over the
targets of all ranks, of which each may have another number: `sequence_loss`.
"""

from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.context_parallel.ring_attention import ring_attention
from parallel_lab.context_parallel.ulysses import check_heads, ulysses
from parallel_lab.context_parallel.zigzag import Group
from parallel_lab.model.gpt import GPT, Attention, causal_attention
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag

METHODS = {"ring": ring_attention, "ulysses": ulysses}


@keyword_only()
def context_parallel(
    model: GPT, *, method: Literal["ring", "ulysses"] = "ring", zigzag: bool = True, group: Group = None
) -> GPT:
    """Has every block's attention reach over the ranks of `group`, in place; returns the model.

    Call it with this rank's tokens and where they stand, and average gradients over the ranks afterwards:

        logits = model(shard_sequence(tokens), positions(tokens.shape[1]))
        sequence_loss(logits, shard_sequence(targets)).backward()

    Args:
        model: a whole `GPT`, the same on every rank. Where tensor parallelism cut its heads, Ulysses cuts these again.
        method: "ring", or "ulysses", whose ranks must divide the heads.
        zigzag: as `shard_sequence` cuts; Ulysses is balanced without, and follows.
        group: whose ranks share each sequence; by default all.

    Raises:
        TypeError: the model is no GPT.
        ValueError: the method is unknown; attention was replaced before; Ulysses cannot deal the heads out; or the
            ranks have different models or settings. Nothing was changed on any rank.
    """
    group = member(group)
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    agree(_problem(model, attentions, method, group), group, device)
    check_same_model(model, group, method=method, zigzag=zigzag)
    for attention in attentions:
        attention.attend = partial(METHODS[method], causal=True, zigzag=zigzag, group=group)
    needing = [model.embedding] if model.config.positions == "learned" else attentions
    for module in needing if group.size() > 1 else ():
        module.register_forward_pre_hook(_refuse_without_positions, with_kwargs=True)
    return model


def _problem(model: Any, attentions: list[Attention], method: str, group: dist.ProcessGroup) -> Exception | None:
    """What stands against it on this rank."""
    if not isinstance(model, GPT):
        return TypeError(f"rank {group.rank()}: context_parallel takes a GPT, and this is a {type(model).__name__}")
    if method not in METHODS:
        return ValueError(f"rank {group.rank()}: {method=}: expected 'ring' or 'ulysses'")
    if any(attention.attend is not causal_attention for attention in attentions):
        return ValueError(f"rank {group.rank()}: the attention of this model was replaced before: build a new one")
    try:
        for each in attentions if method == "ulysses" else ():
            query, key = (linear.weight.shape[0] // each.head_width for linear in (each.query, each.key))
            check_heads(query, key, group)
    except ValueError as error:
        return error
    return None


def _refuse_without_positions(module: nn.Module, args: tuple, kwargs: dict) -> None:
    """Numbering from 0 on every rank would train a model of another order of words."""
    if (args[1] if len(args) > 1 else kwargs.get("positions")) is None:
        raise ValueError(
            f"under context parallelism {type(module).__name__} was called without positions, and this rank's tokens do"
            " not stand at 0, 1, 2: call model(shard_sequence(tokens), positions(tokens.shape[1]))"
        )


@keyword_only()
def sequence_loss(logits: Tensor, targets: Tensor, *, group: Group = None) -> Tensor:
    """The mean cross-entropy over the targets of all ranks, the same number on each; targets of -100 do not count.

    Its gradient is n times what this rank's tokens add to that mean, so that the *average* of the ranks' gradients is
    that of the mean, as `DDP` and `average_gradients` make it. A rank may have no target that counts. It sends two
    numbers of 8 bytes.

    Args:
        logits: (batch, seq/n, vocab), of this rank's tokens.
        targets: (batch, seq/n), int64, sharded after they were shifted.
        group: the ranks that gradients are averaged over; by default all. With data parallelism, those of both axes.
    """
    group = member(group)
    mine = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
    whole = torch.stack([mine.detach().double(), (targets != -100).sum().double()])
    with tag(phase="loss"):
        dist.all_reduce(whole, group=group)
    total, count = whole.to(mine.dtype)
    share = mine * group.size() / count
    return share + (total / count - share).detach()
