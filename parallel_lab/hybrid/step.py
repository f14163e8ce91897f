"""One step of training on any layout, which comes to what one process comes to with the same global batch.

    1  every rank takes its part of the global batch: rows along dp, columns along cp; all of tp and pp read the same
    2  the pipeline runs its microbatches, forward and backward (`pipeline.step`)
    3  gradients of which ranks have parts are summed: over tp (sequence parallelism, copied key-value heads), and over
       the two stages of a tied weight
    4  gradients are averaged over the data ranks, dp x cp, and over no other axis: along tp and pp ranks hold different
       parameters, or the same gradient. Experts are summed over the ranks that hold the same expert, and divided by
       dp x cp all the same, for the tokens of all data ranks came to them
    5  one norm over all axes, one factor, one step; with a loss scale, none on any rank where a gradient overflowed

The loss is the sum over all targets of the global batch, divided once by their number, however they are spread.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab import pipeline
from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.same_model import partition
from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.context_parallel import positions, shard_sequence
from parallel_lab.expert_parallel import mixtures, update_bias
from parallel_lab.hybrid.guard import require_finite
from parallel_lab.hybrid.norm import clip, global_norm
from parallel_lab.hybrid.parallel import Parallel
from parallel_lab.hybrid.stages import loss_sum
from parallel_lab.model.weighted import IGNORED
from parallel_lab.precision import StaticScale
from parallel_lab.tensor_parallel import sum_replicated_gradients
from parallel_lab.trace import tag

BUCKET_BYTES = 25 * 2**20  # so much travels in one message


class Outcome(NamedTuple):
    """What a step came to, the same on all ranks: the mean loss before the update, and the norm before clipping.

    The norm of a step that a loss scale left out is infinite.
    """

    loss: Tensor
    norm: Tensor


class Sum(NamedTuple):
    """Gradients that are being added up over a group."""

    work: dist.Work | None
    flat: Tensor
    grads: list[Tensor]


@keyword_only()
def train_step(parallel: Parallel, tokens: Tensor, targets: Tensor, *, scale: StaticScale | None = None) -> Outcome:
    """One step on a global batch, which every rank is given: tokens and targets (batch, seq), int64.

    Targets that are -100 do not count. Gradients are gone afterwards.

    Args:
        parallel: what `parallelize` made.
        tokens: the whole batch.
        targets: the whole batch, too.
        scale: of the loss, for products in float16 (`torch.autocast` around this call); its group is all ranks. If a
            gradient overflowed on any rank, no rank changes a weight.

    Raises:
        ValueError: the batch or the sequence does not divide as the layout needs it, no target counts, or the norm is
            not finite without a scale (where the optimizer is fused, that of the step before); no weight was changed.
    """
    count, factor = _checked(parallel, tokens, targets), scale.value if scale else 1.0
    loss = gradients(parallel, tokens, targets, count / factor) / factor
    clean = scale is None or scale.unscale(parallel.optimizer)
    norm = global_norm(parallel)
    if clean:
        require_finite(parallel, norm)
        clip(parallel, norm)
    else:
        norm.fill_(torch.inf)  # the rank that overflowed may have a copy, which does not count in a norm
    if scale:
        scale.step(parallel.optimizer)
        scale.update()
    else:
        parallel.optimizer.step()
    parallel.optimizer.zero_grad()
    balance(parallel)
    parallel.steps += 1
    return Outcome(loss, norm)


def gradients(parallel: Parallel, tokens: Tensor, targets: Tensor, count: float) -> Tensor:
    """Leaves in `.grad` this rank's part of the gradient of the mean loss, and returns that loss."""
    _prepare(parallel, *tokens.shape)
    inputs, wanted = share(parallel, tokens), share(parallel, targets)
    loss = pipeline.step(
        parallel.plan,
        parallel.runs,
        inputs,
        wanted,
        loss_sum(parallel.config, parallel.groups["tp"]),
        count=count / parallel.layout.data,  # what follows is a mean over the data ranks
        group=parallel.groups["pp"],
    )
    with tag(mb=parallel.steps):
        for part, module in enumerate(parallel.modules()):
            with tag(part=part):
                sum_replicated_gradients(module)
        pipeline.sum_tied(parallel.tied)
        average_over_data(parallel)
        if parallel.layout.data > 1:
            with tag(phase="loss"):
                dist.all_reduce(loss, group=parallel.groups["dp_cp"])
            loss /= parallel.layout.data
    return loss


def share(parallel: Parallel, batch: Tensor) -> list[Tensor]:
    """This rank's microbatches of a global batch (batch, seq): its rows along dp, its columns along cp."""
    mine = batch.tensor_split(parallel.layout.dp)[parallel.place["dp"]]
    if parallel.layout.cp > 1:
        mine = shard_sequence(mine, group=parallel.groups["cp"])
    return list(mine.to(parallel.device, non_blocking=True).tensor_split(parallel.microbatches))


def _prepare(parallel: Parallel, batch: int, seq: int) -> None:
    """What layers must know of the global batch: where tokens stand, and how many sequences a mean is over."""
    for module in parallel.modules():
        if parallel.layout.cp > 1:
            module.positions = positions(seq, group=parallel.groups["cp"])  # pyright: ignore[reportAttributeAccessIssue]
        for mixture in mixtures(module):
            mixture.auxiliary_sequences = batch / parallel.layout.data  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def average_over_data(parallel: Parallel) -> None:
    """Replaces each gradient by its sum over the ranks that hold the parameter, divided by dp x cp."""
    if parallel.layout.data == 1 or parallel.zero == 3:  # Zero3 has done it, in the backward pass
        return
    replicas = parallel.by_replicas().items()
    sums = [each for axis, named in replicas for each in _sums(list(named.values()), parallel.groups[axis])]
    for work, flat, grads in sums:
        if work:
            work.wait()
        flat /= parallel.layout.data
        put_back(flat, grads)


def balance(parallel: Parallel) -> None:
    """Moves the biases of experts by the load of the global batch, once a step."""
    for part, module in enumerate(parallel.modules() if parallel.bias_rate else ()):
        with tag(part=part, mb=parallel.steps):
            update_bias(module, rate=parallel.bias_rate, group=parallel.groups["dp_cp"])


def _sums(parameters: list[nn.Parameter], group: dist.ProcessGroup) -> list[Sum]:
    """Starts to add up the gradients over `group`, several in one message."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)  # no token came to it here, and other ranks wait for its message
    grads = [("", p.grad) for p in parameters if p.grad is not None]
    found = []
    for part, members in enumerate(partition(grads, BUCKET_BYTES)):
        bucket = [grad for _, grad in members]
        flat = end_to_end(bucket)
        with tag(part=part, phase="gradients"):
            work = dist.all_reduce(flat, group=group, async_op=True) if group.size() > 1 else None
        found.append(Sum(work, flat, bucket))
    return found


def _checked(parallel: Parallel, tokens: Tensor, targets: Tensor) -> int:
    """How many targets of the global batch count."""
    layout, rank = parallel.layout, dist.get_rank()
    if tokens.dim() != 2 or tokens.shape != targets.shape:
        text = f"tokens {tuple(tokens.shape)} and targets {tuple(targets.shape)}: expected (batch, seq) of both"
        raise ValueError(f"rank {rank}: {text}, the global batch")
    batch, seq = tokens.shape
    if seq > parallel.config.seq:
        raise ValueError(f"a sequence of {seq} tokens, where this model has positions for {parallel.config.seq}")
    sizes = {"seq": seq, "batch": batch, "microbatches": parallel.microbatches, "context": parallel.context}
    layout.check(parallel.config, layout.world, stages=len(pipeline.placement(parallel.plan)), **sizes)
    if parallel.sequence and layout.cp > 1 and seq // layout.cp % layout.tp:
        text = f"a sequence of {seq} tokens over cp={layout.cp} does not divide by tp={layout.tp}"
        raise ValueError(f"{text}, whose ranks share it (sequence=True). Pad it")
    count = int((targets != IGNORED).sum())
    if not count:
        raise ValueError(f"rank {rank}: no target of the global batch counts, so there is no mean of their losses")
    return count
