"""A whole GPT cut over the ranks of a group, in place: what each rank keeps, and what a step sends.

Shoeybi et al. 2019, "Megatron-LM", section 3; with `sequence`, Korthikanti et al. 2022, "Reducing activation
recomputation in large transformer models", section 4.2.2. The parts are `linear`, `attention`, `vocab` and `sequence`;
this file puts them into a model, and refuses, before anything is cut, what cannot be cut.

    sharded                all matrices, and the biases of column linears; with `sequence` also the activations between
    replicated             norms, positions, biases of row linears; tokens, targets, the loss
    sent per step and rank 4 (n-1)/n S a block and direction, and for embedding, head and loss what `formulas` adds
    held per rank          1/n of nearly all parameters, gradients and moments

S is the bytes of one activation, b s h numbers. Every rank reads the same batch.
"""

import hashlib
import itertools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.collectives.passes import next_pass
from parallel_lab.model.experts import MixtureOfExperts
from parallel_lab.model.gpt import GPT
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.tensor_parallel.attention import check_heads, cut_attention, cut_feed_forward, feed_forwards
from parallel_lab.tensor_parallel.linear import CutLinear, Group, all_reduce_identity, divided, identity_all_reduce
from parallel_lab.tensor_parallel.sequence import ShardedDropout, ShardedEmbedding, gathered, mark_partial, scattered
from parallel_lab.tensor_parallel.vocab import VocabEmbedding, VocabHead


def plan(
    layers: int, ranks: int, sequence: bool = False, *, mb: int = 0, partial: bool = False, axis: str = ""
) -> Plan:
    """The collectives of one step: forward through embedding, blocks and head, the loss, and backward.

    The part of an op says the how many-th of its kind it is, in its pass and phase. A collective needs the one before
    it on every rank. `mb` is the number of the pass. With `partial` the replicated gradients are summed at the end.

    Raises:
        ValueError: layers or ranks is below 1.
    """
    if min(layers, ranks) < 1:
        raise ValueError(f"layers={layers}, ranks={ranks}: expected at least 1 of each")
    crossings = 2 * layers
    leave, enter = ("reduce_scatter", "all_gather") if sequence else ("all_reduce", "")
    forward = [leave, *[enter, leave] * crossings, enter]
    backward = [leave, *[enter, leave] * crossings, enter] if sequence else ["all_reduce"] * (crossings + 1)
    steps = [("forward", kind) for kind in forward if kind] + [("loss", "all_reduce")] * 2
    steps += [("backward", kind) for kind in backward] + [("step", "all_reduce")] * partial
    count: dict[tuple[str, str], int] = {}
    rows: list[list[Op]] = []
    for phase, kind in steps:
        part = count[phase, kind] = count.get((phase, kind), -1) + 1
        rows.append([Op(rank, kind, part, mb, lane=SEND, axis=axis, phase=phase) for rank in range(ranks)])
    needs = {op: before for before, row in itertools.pairwise(rows) for op in row}
    return Plan.of([op for row in rows for op in row], needs, ranks=ranks)


@keyword_only()
def tensor_parallel(model: GPT, *, sequence: bool = False, group: Group = None) -> GPT:
    """Cuts `model` in place and returns it: called with the whole tokens, it gives this rank's logits.

    Train it with `vocab_cross_entropy(model(tokens), targets, vocab=model.config.vocab)`, and call
    `sum_replicated_gradients(model)` after backward. Parameters keep their names and stay tied; make the optimizer
    afterwards. They are cut from rank 0's values, so one full initialization stands behind all ranks.

    Dropout masks agree over the group where activations are copies. They come from torch's generators, which must be
    in the same state on all ranks of the group and differ between shares of the batch:
    `torch.manual_seed(seed_for(mesh, ["dp"]))`. With `sequence` they differ over the group all the same.

    Args:
        model: a whole `GPT`, built in the same way on every rank, on its device.
        sequence: shard the activations between the cut parts along the sequence.
        group: whose ranks share the model; by default all.

    Raises:
        TypeError: the model is no GPT.
        ValueError: it was cut before; heads or hidden columns do not divide; the ranks have different models or
            settings, or generators in different states where there is dropout. Nothing was cut on any rank.
    """
    group = member(group)
    _check(model, group, sequence)
    broadcast_tensors(model.parameters(), group)
    enter, leave = (gathered, scattered) if sequence else (identity_all_reduce, all_reduce_identity)
    tied = model.head.linear.weight is model.embedding.tokens.weight
    cut: Any = model  # its modules become others
    if sequence:
        cut.embedding = ShardedEmbedding(cut.embedding, group)
    else:
        cut.embedding.tokens = VocabEmbedding(cut.embedding.tokens, group=group)
    for block in cut.blocks:
        cut_attention(block.attention, group, enter, leave)
        cut_feed_forward(block.feed_forward, group, enter, leave)
    cut.head.linear = VocabHead(cut.head.linear, enter=enter, group=group)
    if tied:
        cut.head.linear.weight = cut.embedding.tokens.weight
    if sequence:
        _shard_between(model, group)
    model.register_forward_pre_hook(lambda *_: next_pass(group), prepend=True)
    return model


def _shard_between(model: Any, group: dist.ProcessGroup) -> None:
    """What lies between the cut parts sees this rank's tokens only."""
    for block in model.blocks:
        for part in (block.attention, block.feed_forward):
            part.dropout = ShardedDropout(part.dropout.p, group)
        for module in (block.attention_norm, block.feed_forward_norm, block.attention.out, block.feed_forward.down):
            mark_partial(module, group)
    mark_partial(model.head.norm, group)
    model.register_forward_hook(lambda _, args, logits: logits[:, : args[0].shape[-1]])


def _check(model: Any, group: dist.ProcessGroup, sequence: bool) -> None:
    """Raises what `tensor_parallel` says, on the rank that it is about."""
    if not isinstance(model, GPT):
        raise TypeError(f"tensor_parallel cuts a GPT, and this is a {type(model).__name__}")
    if any(isinstance(module, CutLinear) for module in model.modules()):
        raise ValueError("this model was cut before: build a whole one, and cut that")
    blocks: Any = model.blocks
    for block in blocks:
        check_heads(block.attention, group.size())
        if sequence and isinstance(block.feed_forward, MixtureOfExperts):
            raise ValueError("sequence=True leaves a rank a part of the tokens, and experts need all: choose one")
        for part in feed_forwards(block.feed_forward):
            divided("hidden columns", part.up.out_features, group.size())
    settings: dict[str, object] = {"sequence": sequence}
    if model.config.dropout:
        settings["the state of torch's random generator"] = _generator_state(next(model.parameters()))
    check_same_model(model, group, **settings)


def _generator_state(like: Tensor) -> str:
    """A short word for the state of the generators that dropout draws from."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(like.device)] if like.is_cuda else [])]
    return hashlib.sha256(b"".join(state.numpy().tobytes() for state in states)).hexdigest()[:8]
