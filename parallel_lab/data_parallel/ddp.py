"""Distributed data parallelism: every rank has the whole model and a share of the batch; gradients are averaged.

Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", sections 3.2 and 4.2.

All ranks start from the same weights, compute gradients on their own samples, average these, and take the same step,
so their weights do not differ. Three steps lead to the algorithm:

    naive        After the backward pass, one all-reduce per parameter (`average.py`). Each message costs a latency.
    bucketed     Gradients of several parameters lie in one flat buffer and travel in one message (`Bucket`,
                 `partition`). This is `DDP(model, overlap=False)`.
    overlapped   A hook on each parameter notes that its gradient is there. A full bucket leaves at once, while the
                 backward pass computes the next one (`DDP._arrived`, `DDP.advance`). The last layers come first.

The mean over ranks is the gradient of the mean loss over all samples if the shares are equal. If they are not, rank r
multiplies its loss by n * share_r / batch (`shard_batch` gives that weight).

    replicated             parameters, gradients, optimizer state
    sharded                the batch
    sent per rank and step 2 (n-1)/n * bytes of the gradients, as a ring all-reduce (plus the buffers, if there are any)
    held per rank          all of it: with Adam 16 bytes per parameter, with float32 gradients beside 16-bit weights 18

`guards.py` protects users from mistakes; it comes in where `DDP` calls `self.guard`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.same_model import broadcast_tensors, partition
from parallel_lab.compat import at_end_of_backward
from parallel_lab.data_parallel.autograd import on_gradient, record_stretch
from parallel_lab.data_parallel.extras.hooks import Handle, Hook, finish, start, sum_hook
from parallel_lab.data_parallel.extras.join import joined
from parallel_lab.data_parallel.flat_vector import Named
from parallel_lab.data_parallel.guards import Seams, default_guards
from parallel_lab.data_parallel.wrapped import Wrapped
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.trace import recorder, span, tag


def plan(
    n: int, buckets: int, overlap: bool = True, *, microbatches: int = 1, mb: int = 0, buffers: int = 0, axis: str = ""
) -> Plan:
    """One step on `n` ranks: `F`, then a `B` per bucket, each followed by its all-reduce (lane `send`), then `update`.

    The part of a `B` and of an `all_reduce` is the bucket, 0 being the one that is full first. An all-reduce needs the
    `B` of its bucket on *every* rank, without `overlap` the last `B`. The update needs this rank's all-reduces. `mb` is
    the first microbatch of this step; all but the last of its `microbatches` run in `no_sync`: an `F` and a `B` with
    part -1 each. `buffers` messages carry the buffers before the last forward: one per dtype.
    """
    if min(n, buckets, microbatches) < 1:
        raise ValueError(f"{n} ranks, {buckets} buckets, {microbatches} microbatches: expected at least 1 of each")
    ops, needs, last = [], {}, mb + microbatches - 1
    for rank in range(n):
        for quiet in range(mb, last):
            ops += [Op(rank, "F", 0, quiet, phase="forward"), Op(rank, "B", -1, quiet, phase="backward")]
        share = [Op(rank, "broadcast", i, last, lane=SEND, axis=axis, phase="forward") for i in range(buffers)]
        forward = Op(rank, "F", 0, last, phase="forward")
        backward = [Op(rank, "B", part, last, phase="backward") for part in range(buckets)]
        reduce = [op._replace(kind="all_reduce", lane=SEND, axis=axis) for op in backward]
        pairs = [op for pair in zip(backward, reduce, strict=True) for op in pair] if overlap else backward + reduce
        update = Op(rank, "update", 0, last, phase="step")
        ops += [*share, forward, *pairs, update]
        needs |= {forward: tuple(share), update: tuple(reduce)}
        for op, full in zip(reduce, backward if overlap else backward[-1:] * buckets, strict=True):
            needs[op] = tuple(full._replace(rank=each) for each in range(n))
    return Plan.of(ops, needs)


class Bucket:
    """Gradients of several parameters, of one dtype and device, in one flat buffer, so that they are one message."""

    def __init__(self, index: int, named: Sequence[Named]) -> None:
        self.index = index  # in the order in which buckets are sent
        self.names, self.parameters = zip(*named, strict=True)
        self.renew()
        self.reset()

    def renew(self) -> None:
        """Takes a new buffer of zeros. Gradients that are views of the old one keep what they have."""
        like, sizes = self.parameters[0], [parameter.numel() for parameter in self.parameters]
        self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)  # (elements,)
        self.views = [v.view(p.shape) for v, p in zip(self.flat.split(sizes), self.parameters, strict=True)]

    def reset(self) -> None:
        """A backward pass begins: every gradient is missing."""
        self.missing = set(range(len(self.parameters)))

    def take(self, place: int, scale: float) -> None:
        """Moves the gradient of the parameter at `place`, times `scale`, into the buffer; `.grad` is then a view."""
        parameter, view = self.parameters[place], self.views[place]
        self.missing.discard(place)
        if parameter.grad is None:  # the loss on this rank does not depend on it
            view.zero_()
        else:
            torch.mul(parameter.grad, scale, out=view)
        parameter.grad = view.detach()  # what autograd made is freed here


class DDP(Wrapped):
    """Wraps `model` so that `.grad` of each parameter is the mean over the ranks when `backward()` returns.

    Weights and buffers of rank 0 are given to all ranks here; in training mode, buffers again before each forward.
    Make the optimizer as ever, before or after. `.grad` of each parameter is a view into its bucket's buffer.

    A parameter that the loss does not depend on counts as zeros on that rank. If no rank used it, its `.grad` stays
    None. Frozen parameters are left alone. Tied ones are averaged once. A layer that is thawed, replaced or converted
    after wrapping is taken in at the next forward. Sparse gradients and `create_graph=True` are refused.

    Args:
        model: the same on every rank, and on the device where it stays.
        bucket_bytes: a bucket is closed once it holds so much. Smaller ones leave earlier and hide more on a slow link,
            but cost gloo more time per byte, so the default is PyTorch's 25 MiB (measured in `benchmarks/ddp.py`).
        hook: what to do with a full bucket instead of the mean, see `extras/hooks.py`.
        overlap: False sends no bucket before the backward pass is over.
        broadcast_buffers: False leaves each rank its own buffers after the first exchange.
        check_finite: raise where a gradient is NaN or infinite, before any weight changes; False lets it pass.
        guards: what stands at the seams, see `guards.py`. An empty list leaves the bare algorithm.
        group: whose ranks share the work; by default all.

    Raises:
        TypeError: `model` is no module, `hook` cannot be called, or `bucket_bytes` is no whole number.
        ValueError: the ranks' models or settings differ (on the rank that is at odds, others wait in a barrier); no
            parameter requires a gradient; `bucket_bytes` is below 1. During backward: a gradient that is not finite
            (on the rank it came from), or a backward without a forward of its own.
    """

    instead = "copy or pickle its .module: a DDP itself has a process group and hooks of this process"

    @keyword_only()
    def __init__(
        self,
        model: nn.Module,
        *,
        bucket_bytes: int = 25 * 2**20,
        hook: Hook | None = None,
        overlap: bool = True,
        broadcast_buffers: bool = True,
        check_finite: bool = True,
        guards: Sequence[Any] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(model, group)
        self.bucket_bytes, self.overlap, self.broadcast_buffers = bucket_bytes, overlap, broadcast_buffers
        self.hook, self.scale = (hook, 1.0) if hook else (sum_hook, 1 / self.group.size())
        self.guard = Seams(default_guards(check_finite) if guards is None else guards)
        # Of the backward pass. idle: none is expected. armed: a forward has been. reached: autograd has come to an
        # output. running: gradients of parameters come, and `full` buckets have been full, in their order.
        self.state = "idle"
        self.averages = True  # whether the backward pass that is expected averages
        self.mb, self.source = -1, 0  # the microbatch, counted from the first forward; whose buffers count
        self.handles: list[Handle] = []
        self.came: dict[nn.Parameter, bool] = {}  # in this pass, in order; whether the loss depends on it here
        self.wrap("setup")

    def wrap(self, phase: str) -> None:
        """Takes the model as it is now: the same weights on all ranks, a place in a bucket and a hook per parameter."""
        with tag(mb=max(self.mb, 0), phase=phase):
            self.guard.before_wrap(self)
            broadcast_tensors([*self.module.parameters(), *self.module.buffers()], self.group, self.source)
        named = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad and p.numel()]
        self.cut(named[::-1])  # the last layers have their gradients first
        self.hooks = [parameter.register_post_accumulate_grad_hook(self._arrived) for _, parameter in named]

    def cut(self, named: Sequence[Named]) -> None:
        """New buckets for `named`, in this order."""
        self.buckets = [Bucket(i, members) for i, members in enumerate(partition(named, self.bucket_bytes))]
        self.place = {p: (bucket, i) for bucket in self.buckets for i, p in enumerate(bucket.parameters)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns. A backward pass through it averages gradients, unless called inside `no_sync`."""
        self.mb += 1
        self.guard.before_forward(self)
        if self.training and self.sync and self.broadcast_buffers:
            self.guard.before_buffers(self)
            broadcast_tensors(self.module.buffers(), self.group, self.source, mb=self.mb, phase="forward")
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.place):
            self.state, self.averages = "armed", self.sync
        with span("forward", mb=self.mb, phase="forward"):
            output = self.module(*args, **kwargs)
        on_gradient(output, self._reached)
        self.guard.after_forward(self, output)
        return output

    def expect_backward(self, *, averages: bool) -> None:
        """As in `Wrapped`; a forward pass need not come before."""
        super().expect_backward(averages=averages)
        self.state, self.averages = "armed", averages

    join = joined  # for ranks with different numbers of batches

    def _reached(self, *_: object) -> None:
        """Autograd has come to an output. If gradients of parameters follow, `_end` closes the pass."""
        self.state = "reached" if self.state == "armed" else self.state
        self.since_s = recorder().now()
        at_end_of_backward(self._end)

    def begin(self) -> None:
        """The first gradient of a backward pass has come."""
        if self.state != "running":
            if self.state != "reached":  # the output is in an object that `on_gradient` does not look into
                self._reached()
            self.guard.before_backward(self)
            self.state, self.full, self.handles, self.came = "running", 0, [], {}
            for bucket in self.buckets:
                bucket.reset()

    def _arrived(self, parameter: nn.Parameter) -> None:
        """The gradient of `parameter` is complete. A bucket that it fills leaves at once, during the backward pass."""
        if self.guard.admits(self, parameter):
            self.begin()
            if self.averages:
                bucket, place = self.place[parameter]
                self.came[parameter] = parameter.grad is not None
                bucket.take(place, self.scale)
                self.advance()

    def has(self, parameter: nn.Parameter) -> bool:
        """Whether the gradient of `parameter` has come in the backward pass that runs."""
        return self.state == "running" and parameter in self.came

    def advance(self) -> None:
        """Sends the buckets whose turn it is, up to the first that is not full.

        So every rank starts the same all-reduces in the same order, whatever order its gradients came in.
        """
        while self.full < len(self.buckets) and not self.buckets[self.full].missing:
            self.since_s = record_stretch(self.full, self.mb, self.since_s)
            if self.overlap:
                self.send(self.buckets[self.full])
            self.full += 1

    def send(self, bucket: Bucket) -> None:
        """Starts the all-reduce of a full bucket."""
        self.guard.on_bucket(bucket)
        with tag(part=bucket.index, mb=self.mb, phase="backward"):
            self.handles.append(start(self.hook, self.group, bucket))

    def _end(self) -> None:
        """The backward pass is over. Parameters that it did not come to count as zeros, or as what they have."""
        if self.state == "running" and self.averages:
            for parameter in [b.parameters[place] for b in self.buckets for place in sorted(b.missing)]:
                self._arrived(parameter)
            self.finish()
        elif self.state == "running":
            record_stretch(-1, self.mb, self.since_s)
        # After `autograd.grad`, which came to an output and accumulated nothing, a backward pass is still expected.
        self.state = "armed" if self.state in ("armed", "reached") else "idle"

    def finish(self) -> None:
        """Sends what has not left, and waits until all means are there."""
        for bucket in self.buckets[len(self.handles) :]:
            self.send(bucket)
        for bucket, handle in zip(self.buckets, self.handles, strict=True):
            finish(handle, bucket.flat)
        self.state = "idle"
        self.guard.after_backward(self)
