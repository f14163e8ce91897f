"""Distributed data parallelism: every rank has the whole model and a share of the batch; gradients are averaged.

Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", sections 3.2 and 4.2.

All ranks start from the same weights, compute gradients on their own samples, average these, and take the same step,
so they never differ. Gradients are averaged in buckets, last layers first, because the backward pass has those first:
while it goes on, full buckets are on their way. The mean over ranks is the gradient of the mean loss over all samples
if the shares are equal; if not, rank r multiplies its loss by n * share_r / batch (`shard_batch` gives that weight).

    replicated             parameters, gradients, optimizer state
    sharded                the batch
    sent a step and rank   2 (n-1)/n * bytes of the gradients, as a ring all-reduce (plus the buffers, if there are any)
    held a rank            all of it: with Adam 16 bytes a parameter, in float32 or in mixed precision

`ddp.py` is what a user sees, `reducer.py` the backward pass, `buckets.py` who travels with whom, `settle.py` and
`parallel_lab/agree` what ranks must agree on, `join.py` ranks without a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.data_parallel.buckets import Bucket
from parallel_lab.data_parallel.hooks import Hook
from parallel_lab.data_parallel.join import BACKWARD, FORWARD, Announcer, joined, share_state
from parallel_lab.data_parallel.outputs import tensors_in
from parallel_lab.data_parallel.reducer import Reducer
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import span


def plan(n: int, buckets: int, overlap: bool = True) -> Plan:
    """One step on `n` ranks: F, then B a bucket, each followed by its all-reduce (lane `send`), then `update`.

    The part of a B and of an `all_reduce` is the bucket, 0 being the one that is full first. An all-reduce needs the B
    of its bucket on *every* rank, without `overlap` the last B; the update needs this rank's all-reduces. ValueError
    unless n and buckets are at least 1.
    """
    if n < 1 or buckets < 1:
        raise ValueError(f"{n} ranks and {buckets} buckets: expected at least 1 of each")
    ops, needs = [], {}
    for rank in range(n):
        backward = [Op(rank, "B", part) for part in range(buckets)]
        reduce = [Op(rank, "all_reduce", part, lane=SEND) for part in range(buckets)]
        pairs = [op for pair in zip(backward, reduce, strict=True) for op in pair] if overlap else backward + reduce
        update = Op(rank, "update", 0)
        ops += [Op(rank, "F", 0), *pairs, update]
        needs[update] = tuple(reduce)
    for part in range(buckets):
        full = tuple(Op(rank, "B", part if overlap else buckets - 1) for rank in range(n))
        needs |= {Op(rank, "all_reduce", part, lane=SEND): full for rank in range(n)}
    return Plan.of(ops, needs)


class DDP(nn.Module):
    """Wraps `model` so that `.grad` of each parameter is the mean over the ranks when `backward()` returns.

    Weights and buffers of rank 0 are given to all ranks here; in training mode, buffers again before each forward.
    Make the optimizer as ever, before or after. `.grad` of each parameter is a view into its bucket's buffer.

    A parameter that the loss does not depend on counts as zeros on that rank; if no rank used it, its `.grad` stays
    None. Frozen parameters (`requires_grad=False` now) are left alone; tied ones are averaged once. Sparse gradients
    and `create_graph=True` are not supported. After the first backward, buckets are cut anew in the order in which the
    gradients of rank 0 came (one small broadcast).

    Args:
        model: the same on every rank of `group`; on the device where it stays.
        bucket_bytes: a bucket is closed once it holds so much; the same on every rank. Smaller ones leave earlier and
            hide more on a slow link; but gloo spends more of the processor's time a byte on small messages, so the
            default is PyTorch's 25 MiB (measured in `benchmarks/ddp.py`).
        hook: what to do with a full bucket in place of the mean, see `hooks.py`.
        check_finite: raise where a gradient is NaN or infinite, before any weight changes.
        overlap: False sends no bucket before the backward pass is over.

    Attributes:
        module: the model.

    Raises:
        TypeError: `model` is no module, or `hook` cannot be called.
        ValueError: the ranks' models or settings differ (on the rank that is at odds, others wait in a barrier); no
            parameter requires a gradient; `bucket_bytes` is not a positive whole number. During backward: a gradient
            that is not finite (on the rank it came from), or a backward without a forward of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        group: dist.ProcessGroup | None = None,
        bucket_bytes: int = 25 * 2**20,
        hook: Hook | None = None,
        check_finite: bool = True,
        overlap: bool = True,
    ) -> None:
        self.group = member(group)
        named = _validated(model, self.group, bucket_bytes, hook)
        check_same_model(model, self.group, bucket_bytes=bucket_bytes, overlap=overlap, check_finite=check_finite)
        super().__init__()
        self.module = model
        broadcast_tensors([*model.parameters(), *model.buffers()], self.group)
        self._reducer = Reducer(named, self.group, bucket_bytes, hook, check_finite, overlap)
        self._synchronize = True
        self._announcer: Announcer | None = None

    @property
    def buckets(self) -> list[Bucket]:
        """The buckets, in the order in which they are sent."""
        return self._reducer.buckets

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns. A backward pass through it averages gradients, unless called inside `no_sync`."""
        grad = torch.is_grad_enabled()
        if grad:
            self._reducer.arm(self._synchronize)
        if self.training and self._synchronize:
            self._share_buffers()
        with span("forward", mb=self._reducer.microbatch):
            output = self.module(*args, **kwargs)
        if grad:
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._reducer.begin)
        return output

    def _share_buffers(self) -> None:
        if buffers := list(self.module.buffers()):
            source = self._announcer.announce(FORWARD).source if self._announcer else 0
            broadcast_tensors(buffers, self.group, source)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forward passes inside add their gradients up on this rank and send nothing.

        The first forward and backward outside averages the sum. Divide each of m microbatch losses by m.
        """
        before, self._synchronize = self._synchronize, False
        try:
            yield
        finally:
            self._synchronize = before

    @contextmanager
    def join(self, optimizer: torch.optim.Optimizer | None = None) -> Iterator[None]:
        """Lets ranks have different numbers of batches: put each rank's loop over its own batches inside.

        A rank that has run out contributes zeros until all have. The mean stays one over all n ranks. At the end, ranks
        that ran out take over weights and buffers, and the state of `optimizer` if given, of one that was there to
        the end: without it their moments are old, and the next step would differ from the others'. Costs one
        all-reduce of 24 bytes a forward (with buffers) and a backward.
        """
        self._announcer = announcer = Announcer(self.group, self.buckets[0].flat.device)
        self._reducer.before_backward = lambda: announcer.announce(BACKWARD)
        buffers = list(self.module.buffers())

        def adopt(source: int) -> None:
            broadcast_tensors([*self.module.parameters(), *buffers], self.group, source)
            if optimizer is not None:
                share_state(optimizer, self.group, source)

        try:
            share = lambda source: broadcast_tensors(buffers, self.group, source)  # noqa: E731
            with joined(announcer, share, self._reducer.shadow, adopt):
                yield
        finally:
            self._announcer, self._reducer.before_backward = None, lambda: None

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model: names have no prefix, so it loads without DDP too."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model. Every rank must load the same."""
        return self.module.load_state_dict(*args, **kwargs)


def _validated(model: Any, group: dist.ProcessGroup, bucket_bytes: Any, hook: Any) -> list[tuple[str, nn.Parameter]]:
    """The parameters to average; refuses what makes no sense on this rank alone."""
    rank = f"rank {group.rank()}:"
    if not isinstance(model, nn.Module):
        raise TypeError(f"{rank} DDP wraps a torch.nn.Module, got {type(model).__name__}")
    if hook is not None and not callable(hook):
        raise TypeError(f"{rank} hook is {hook!r}: expected a function of (group, flat) that returns a handle")
    if not isinstance(bucket_bytes, int) or isinstance(bucket_bytes, bool) or bucket_bytes < 1:
        raise ValueError(f"{rank} bucket_bytes is {bucket_bytes!r}: expected a whole number of bytes, at least 1")
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise ValueError(f"{rank} {name!r} has sparse gradients, which have no place in a bucket: use sparse=False")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel()]
    if not named:
        raise ValueError(f"{rank} no parameter requires a gradient: nothing to average, use the model without DDP")
    return named
