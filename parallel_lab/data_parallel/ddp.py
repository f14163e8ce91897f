"""Distributed data parallelism: every rank has the whole model and a share of the batch; gradients are averaged.

Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", sections 3.2 and 4.2.

All ranks start from the same weights, compute gradients on their own samples, average these, and take the same step.
So their weights never differ. Three steps lead to the algorithm:

    naive        After the backward pass, one all-reduce a parameter (`average.py`). Each message costs a latency.
    bucketed     Gradients of several parameters lie in one flat buffer and travel in one message (`Bucket`,
                 `partition`). This is `DDP(model, overlap=False)`.
    overlapped   A hook on each parameter notes that its gradient is there. A full bucket leaves at once, while the
                 backward pass computes the next one (`DDP._arrived`, `DDP.advance`). The last layers come first.

The mean over ranks is the gradient of the mean loss over all samples if the shares are equal. If they are not, rank r
multiplies its loss by n * share_r / batch (`shard_batch` gives that weight).

    replicated             parameters, gradients, optimizer state
    sharded                the batch
    sent a step and rank   2 (n-1)/n * bytes of the gradients, as a ring all-reduce (plus the buffers, if there are any)
    held a rank            all of it: with Adam 16 bytes a parameter, in float32 or in mixed precision

What protects users from mistakes stands in `guards.py`, and comes in at the places where `DDP` calls `self.guards`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import Variable

from parallel_lab.agree.arguments import no_positional
from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel.extras.hooks import Handle, Hook, finish, start, sum_hook
from parallel_lab.data_parallel.extras.join import joined
from parallel_lab.data_parallel.guards import Guard, default_guards
from parallel_lab.data_parallel.outputs import tensors_in
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, span, tag

Named = tuple[str, nn.Parameter]


def plan(
    n: int,
    buckets: int,
    overlap: bool = True,
    *,
    microbatches: int = 1,
    first: int = 0,
    broadcasts: int = 0,
    axis: str = "",
) -> Plan:
    """One step on `n` ranks: F, then B a bucket, each followed by its all-reduce (lane `send`), then `update`.

    The part of a B and of an `all_reduce` is the bucket, 0 being the one that is full first. An all-reduce needs the B
    of its bucket on *every* rank, without `overlap` the last B. The update needs this rank's all-reduces.

    Args:
        n: how many ranks.
        buckets: how many buckets.
        overlap: as in `DDP`.
        microbatches: how many a step has. All but the last run in `no_sync`: an F and a B with part -1 each.
        first: the number of the first microbatch of this step, counted from the first of the run.
        broadcasts: how many messages carry the buffers before the last forward: one a dtype, 0 without buffers.
        axis: the mesh axis of the group; empty for the default group.

    Raises:
        ValueError: n, buckets or microbatches is below 1.
    """
    if min(n, buckets, microbatches) < 1:
        raise ValueError(f"{n} ranks, {buckets} buckets, {microbatches} microbatches: expected at least 1 of each")
    ops, needs, last = [], {}, first + microbatches - 1
    for rank in range(n):
        for mb in range(first, last):
            ops += [Op(rank, "F", 0, mb, phase="forward"), Op(rank, "B", -1, mb, phase="backward")]
        share = [Op(rank, "broadcast", i, last, lane=SEND, axis=axis, phase="forward") for i in range(broadcasts)]
        forward = Op(rank, "F", 0, last, phase="forward")
        backward = [Op(rank, "B", part, last, phase="backward") for part in range(buckets)]
        reduce = [op._replace(kind="all_reduce", lane=SEND, axis=axis) for op in backward]
        pairs = [op for pair in zip(backward, reduce, strict=True) for op in pair] if overlap else backward + reduce
        update = Op(rank, "update", 0, last, phase="step")
        ops += [*share, forward, *pairs, update]
        needs |= {forward: tuple(share), update: tuple(reduce)}
    for op in [op for op in ops if op.kind == "all_reduce"]:
        full = Op(0, "B", op.part if overlap else buckets - 1, last, phase="backward")
        needs[op] = tuple(full._replace(rank=rank) for rank in range(n))
    return Plan.of(ops, needs)


class Bucket:
    """Gradients of several parameters, of one dtype and device, in one flat buffer, so that they are one message.

    Attributes:
        index: the place in the order in which buckets are sent.
        names: of the parameters.
        parameters: in the order of the buffer.
        flat: (elements,), zeros at first.
        views: for each parameter its part of `flat`, in the parameter's shape.
        missing: the places of the parameters whose gradients have not come in this backward pass.
        unused: the places of the parameters that had no gradient on this rank. They count as zeros.
    """

    def __init__(self, index: int, named: Sequence[Named]) -> None:
        self.index = index
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.renew()
        self.reset()

    def __repr__(self) -> str:
        return f"<Bucket {self.index}: {self.bytes:,} bytes of {', '.join(self.names)}>"

    @property
    def bytes(self) -> int:
        """The size of the flat buffer."""
        return self.flat.nbytes

    def renew(self) -> None:
        """Takes a new buffer of zeros. Gradients that are views of the old one keep what they have."""
        like, sizes = self.parameters[0], [parameter.numel() for parameter in self.parameters]
        self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        self.views = [v.view(p.shape) for v, p in zip(self.flat.split(sizes), self.parameters, strict=True)]

    def reset(self) -> None:
        """A backward pass begins: every gradient is missing."""
        self.missing = set(range(len(self.parameters)))
        self.unused: set[int] = set()

    def take(self, place: int, scale: float) -> None:
        """Moves the gradient of the parameter at `place`, times `scale`, into the buffer; `.grad` is then a view."""
        parameter, view = self.parameters[place], self.views[place]
        self.missing.discard(place)
        if parameter.grad is None:
            view.zero_()
            self.unused.add(place)
        else:
            torch.mul(parameter.grad, scale, out=view)
            parameter.grad = view.detach()  # what autograd made is freed here

    def hand_out(self) -> None:
        """The mean is there: parameters that this rank did not use get theirs too."""
        for place in self.unused:
            self.parameters[place].grad = self.views[place].detach()


def partition(named: Sequence[Named], bucket_bytes: int) -> list[list[Named]]:
    """Cuts `named` into buckets, keeping the order; a bucket is closed once it holds `bucket_bytes` or more.

    Dtypes and devices do not mix. Buckets stand in the order of their last members, in which they fill up.
    """
    place = {name: i for i, (name, _) in enumerate(named)}
    open_: dict[tuple, list[Named]] = {}
    closed: list[list[Named]] = []
    for name, parameter in named:
        members = open_.setdefault((parameter.dtype, parameter.device), [])
        members.append((name, parameter))
        if sum(p.nbytes for _, p in members) >= bucket_bytes:
            closed.append(open_.pop((parameter.dtype, parameter.device)))
    return sorted([*closed, *open_.values()], key=lambda members: place[members[-1][0]])


class DDP(nn.Module):
    """Wraps `model` so that `.grad` of each parameter is the mean over the ranks when `backward()` returns.

    Weights and buffers of rank 0 are given to all ranks here; in training mode, buffers again before each forward.
    Make the optimizer as ever, before or after. `.grad` of each parameter is a view into its bucket's buffer.

    A parameter that the loss does not depend on counts as zeros on that rank. If no rank used it, its `.grad` stays
    None. Frozen parameters are left alone. Tied ones are averaged once. A layer that is thawed, replaced or converted
    after wrapping is taken in at the next forward, on all ranks alike. Sparse gradients and `create_graph=True` are
    refused. After the first backward, buckets are cut anew in the order in which the gradients of rank 0 came.

    Args:
        model: the same on every rank of `group`; on the device where it stays.
        bucket_bytes: a bucket is closed once it holds so much; the same on every rank. Smaller ones leave earlier and
            hide more on a slow link. But gloo spends more of the processor's time a byte on small messages, so the
            default is PyTorch's 25 MiB (measured in `benchmarks/ddp.py`).
        hook: what to do with a full bucket in place of the mean, see `extras/hooks.py`.
        overlap: False sends no bucket before the backward pass is over.
        broadcast_buffers: False leaves each rank its own buffers after the first exchange.
        check_finite: raise where a gradient is NaN or infinite, before any weight changes.
        guards: what stands at the seams, see `guards.py`. An empty list leaves the bare algorithm.
        group: whose ranks share the work; by default all.

    Attributes:
        module: the model.
        buckets: in the order in which they are sent.
        mb: the microbatch, counted from the first forward.

    Raises:
        TypeError: `model` is no module, `hook` cannot be called, or there is an argument without a name.
        ValueError: the ranks' models or settings differ (on the rank that is at odds, others wait in a barrier); no
            parameter requires a gradient; `bucket_bytes` is not a positive whole number. During backward: a gradient
            that is not finite (on the rank it came from), or a backward without a forward of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        *positional: object,
        bucket_bytes: int = 25 * 2**20,
        hook: Hook | None = None,
        overlap: bool = True,
        broadcast_buffers: bool = True,
        check_finite: bool = True,
        guards: Sequence[Guard] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        no_positional("DDP", positional, "model, group=...")
        super().__init__()
        self.module = model
        self.group = member(group)
        self.bucket_bytes = bucket_bytes
        self.hook = hook or sum_hook
        self.scale = 1.0 if hook else 1 / self.group.size()  # dividing first keeps sums of float16 in range
        self.overlap = overlap
        self.broadcast_buffers = broadcast_buffers
        self.guards = default_guards(check_finite) if guards is None else list(guards)
        self.mb, self.source = -1, 0
        self.synchronize = self.averages = True
        self.armed = self.reached = self.running = False
        self.handles: list[Handle] = []
        self.hooks: list[Any] = []
        self.wrap("setup")

    def wrap(self, phase: str) -> None:
        """Takes the model as it is now: the same weights on all ranks, a place in a bucket and a hook a parameter."""
        with tag(mb=max(self.mb, 0), phase=phase):
            for guard in self.guards:
                guard.before_wrap(self)
            broadcast_tensors([*self.module.parameters(), *self.module.buffers()], self.group)
        named = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad and p.numel()]
        self.cut(named[::-1])  # the last layers have their gradients first
        for handle in self.hooks:
            handle.remove()
        self.hooks = [parameter.register_post_accumulate_grad_hook(self._arrived) for _, parameter in named]

    def cut(self, named: Sequence[Named]) -> None:
        """New buckets for `named`, in this order."""
        self.buckets = [Bucket(i, members) for i, members in enumerate(partition(named, self.bucket_bytes))]
        self.place = {p: (bucket, i) for bucket in self.buckets for i, p in enumerate(bucket.parameters)}

    def shared_buffers(self) -> list[torch.Tensor]:
        """What this forward takes over from rank 0."""
        wanted = self.training and self.synchronize and self.broadcast_buffers
        return list(self.module.buffers()) if wanted else []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns. A backward pass through it averages gradients, unless called inside `no_sync`."""
        self.mb += 1
        for guard in self.guards:
            guard.before_forward(self)
        with tag(mb=self.mb, phase="forward"):
            broadcast_tensors(self.shared_buffers(), self.group, self.source)
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.place):
            self.armed, self.averages, self.reached, self.running = True, self.synchronize, False, False
        with span("forward", mb=self.mb, phase="forward"):
            output = self.module(*args, **kwargs)
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(self._reached)
        for guard in self.guards:
            guard.after_forward(self, output)
        return output

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forward passes inside add their gradients up on this rank and send nothing.

        The first forward and backward outside averages the sum. Divide each of m microbatch losses by m.
        """
        before, self.synchronize = self.synchronize, False
        try:
            yield
        finally:
            self.synchronize = before

    def _reached(self, _: torch.Tensor) -> None:
        """Autograd has come to an output: if gradients of parameters follow, the end of this pass is the step's."""
        self.reached, self.since_s = True, recorder().now()
        Variable._execution_engine.queue_callback(self._end)  # pyright: ignore[reportAttributeAccessIssue] (no stub)

    def begin(self) -> None:
        """A backward pass accumulates its first gradient. Whatever a pass that raised has left is cleared away."""
        if self.running:
            return
        if not self.reached:  # an output in an object that we cannot look into
            self._reached(torch.empty(0))
        for handle in self.handles:
            handle.wait()
        for guard in self.guards if self.averages else ():
            guard.before_backward(self)
        self.mb += not self.armed  # a second pass in `no_sync` after one forward
        self.running, self.armed, self.handles, self.full = True, False, [], 0
        for bucket in self.buckets:
            bucket.reset()

    def _arrived(self, parameter: nn.Parameter) -> None:
        """The gradient of `parameter` is complete for this backward pass. A bucket that it fills leaves at once."""
        if not all(guard.admits(self, parameter) for guard in self.guards):
            return
        self.begin()
        if self.averages:
            bucket, place = self.place[parameter]
            bucket.take(place, self.scale)
            for guard in self.guards:
                guard.after_gradient(bucket, place)
            self.advance()

    def advance(self) -> None:
        """Sends the buckets whose turn it is, up to the first that is not full.

        So every rank starts the same all-reduces in the same order, whatever order its gradients came in.
        """
        while self.full < len(self.buckets) and not self.buckets[self.full].missing:
            self._record(self.full)
            self.full += 1
            if self.overlap:
                self.send(self.buckets[self.full - 1])

    def send(self, bucket: Bucket) -> None:
        """Starts the all-reduce of a full bucket."""
        for guard in self.guards:
            guard.on_bucket(bucket)
        with tag(part=bucket.index, mb=self.mb, phase="backward"):
            self.handles.append(start(self.hook, self.group, bucket.flat))

    def _end(self) -> None:
        """The backward pass is over. Parameters that it did not come to count as zeros, or as what they have."""
        self.reached = False
        if not self.running:
            return  # `autograd.grad` came to an output and accumulated nothing
        if self.averages:
            for parameter in [b.parameters[place] for b in self.buckets for place in sorted(b.missing)]:
                self._arrived(parameter)
        self.running = False
        if self.averages:
            self.finish()
        else:
            self._record(-1)

    def finish(self) -> None:
        """Sends what has not left, waits for all means, and hands them out."""
        for bucket in self.buckets[len(self.handles) :]:
            self.send(bucket)
        for bucket, handle in zip(self.buckets, self.handles, strict=True):
            finish(handle, bucket.flat)
            bucket.hand_out()
        self.handles = []
        for guard in self.guards:
            guard.after_backward(self)

    def _record(self, part: int) -> None:
        """Writes down the stretch of the backward pass that ends now."""
        keeper = recorder()
        if keeper.enabled:
            keeper.complete(keeper.issue("backward", part=part, mb=self.mb, phase="backward", start_s=self.since_s))
            self.since_s = keeper.now()

    def join(self, optimizer: torch.optim.Optimizer | None = None) -> AbstractContextManager[None]:
        """Lets ranks have different numbers of batches: see `extras/join.py`."""
        return joined(self, optimizer)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model: names have no prefix, so it loads without DDP too."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model. Every rank must load the same."""
        return self.module.load_state_dict(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """No copy: its process group and the hooks belong to this process."""
        raise TypeError("copy or pickle its .module: a DDP itself has a process group and hooks, which belong to this process")
