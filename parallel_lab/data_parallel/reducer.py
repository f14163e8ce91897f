"""The backward pass of DDP: gradients fill buckets, full buckets leave, and the end of the pass waits for all of them.

Autograd calls `Reducer.arrived` after each gradient. A bucket leaves as soon as it is full *and* all before it have
left: every rank then starts the same all-reduces in the same order, whatever order its gradients came in.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import Variable

from parallel_lab.data_parallel.buckets import Bucket, Named, make_buckets
from parallel_lab.data_parallel.hooks import Handle, Hook, finish, start, sum_hook
from parallel_lab.data_parallel.settle import require_finite, settle_unused
from parallel_lab.trace import recorder


class Reducer:
    """Averages the gradients of `named` over `group` during each backward pass.

    Args:
        named: the parameters to average, by name, in order of registration; all require gradients.
        bucket_bytes, hook, check_finite, overlap: as in `DDP`.

    Attributes:
        buckets: in the order in which they are sent.
        before_backward: called when a pass that averages begins (`join` announces it to ranks that have no batch).
    """

    def __init__(
        self,
        named: Sequence[Named],
        group: dist.ProcessGroup,
        bucket_bytes: int,
        hook: Hook | None,
        check_finite: bool,
        overlap: bool,
    ) -> None:
        self.group, self.check_finite, self.overlap = group, check_finite, overlap
        self.hook, self.scale = (hook, 1.0) if hook else (sum_hook, 1 / group.size())
        self.bucket_bytes = bucket_bytes
        self.named = list(named)
        self.before_backward: Callable[[], object] = lambda: None
        self.order: list[nn.Parameter] | None = []  # in which gradients came in the first pass; None afterwards
        self._use(make_buckets(self.named[::-1], bucket_bytes))
        self.armed, self.averages, self.running = False, True, False
        self.handles: list[Handle] = []
        self.microbatch = 0
        self._span = -1
        for _, parameter in self.named:
            parameter.register_post_accumulate_grad_hook(self.arrived)

    def _use(self, buckets: list[Bucket]) -> None:
        self.buckets = buckets
        self.place = {p: (bucket, i) for bucket in buckets for i, p in enumerate(bucket.parameters)}

    def arm(self, averages: bool) -> None:
        """A forward pass begins; `averages` says whether its backward pass will."""
        self.armed, self.averages, self.running = True, averages, False

    def begin(self, *_: object) -> None:
        """A backward pass begins. Called by the gradient of the output, or by the first gradient of a parameter."""
        if self.running:
            return
        if self.averages and not self.armed:
            raise ValueError(
                f"rank {self.group.rank()}: backward ran twice after one forward, or on the wrapped model itself. Call"
                " the DDP once before each backward; add several losses up first, or use no_sync() for all but one."
            )
        self.running, self.armed, self.next, self.handles = True, False, 0, []
        if self.averages:
            self.before_backward()
            for bucket in self.buckets:
                bucket.reset()
        self._open_span(0 if self.averages else -1)
        Variable._execution_engine.queue_callback(self._end)  # pyright: ignore[reportAttributeAccessIssue] (no stub)

    def arrived(self, parameter: nn.Parameter) -> None:
        """The gradient of `parameter` is complete for this backward pass."""
        self.begin()
        if not self.averages:
            return
        bucket, i = self.place[parameter]
        if bucket.seen[i]:
            raise ValueError(
                f"rank {self.group.rank()}: the gradient of {bucket.names[i]!r} came twice in one backward pass;"
                " with activation checkpointing, pass use_reentrant=False"
            )
        if self.order is not None:
            self.order.append(parameter)
        bucket.take(i, self.scale, self.check_finite)
        if not bucket.waiting:
            self._advance()

    def _advance(self) -> None:
        """Sends the buckets whose turn it is, up to the first that is not full."""
        while self.next < len(self.buckets) and not self.buckets[self.next].waiting:
            self._close_span()
            if self.overlap:
                self._send(self.buckets[self.next])
            self.next += 1
            if self.next < len(self.buckets):
                self._open_span(self.next)

    def _send(self, bucket: Bucket) -> None:
        bucket.poison()
        self.handles.append(start(self.hook, self.group, bucket.flat))

    def _end(self) -> None:
        """The backward pass is over: sends what is left, waits for everything, and agrees with the other ranks."""
        self.running = False
        if not self.averages:
            self._close_span()
            self.microbatch += 1
            return
        for bucket in self.buckets[self.next :]:
            bucket.take_rest(self.scale, self.check_finite)
        self._advance()
        self._wait()
        self.microbatch = 0

    def _wait(self) -> None:
        if not self.overlap:
            for bucket in self.buckets:
                self._send(bucket)
        for bucket, handle in zip(self.buckets, self.handles, strict=True):
            finish(handle, bucket.flat)
        if self.check_finite:
            require_finite(self.buckets, self.group)
        settle_unused(self.buckets, self.group)
        if self.order is not None:
            self._reorder(self.order)

    def shadow(self) -> None:
        """Takes part in the averaging of the other ranks with zeros, as a rank that has no batch."""
        self.handles = []
        for bucket in self.buckets:
            bucket.empty()
            if self.overlap:
                self._send(bucket)
        self._wait()

    def _reorder(self, order: list[nn.Parameter]) -> None:
        """After the first pass: buckets in the order in which rank 0's gradients came, which all ranks adopt."""
        self.order = None
        if len(self.buckets) == 1:
            return
        number = {p: i for i, (_, p) in enumerate(self.named)}
        now = [number[p] for bucket in self.buckets for p in bucket.parameters]
        came = [number[p] for p in order]
        rest = sorted(set(now) - set(came), key=now.index)
        wanted = torch.tensor(came + rest, device=self.buckets[0].flat.device)
        dist.broadcast(wanted, group=self.group, group_src=0)
        if wanted.tolist() != now:
            self._use(make_buckets([self.named[i] for i in wanted.tolist()], self.bucket_bytes))
            for bucket in self.buckets:
                bucket.take_rest(1.0, look=False)  # the means move into the new buffers

    def _open_span(self, part: int) -> None:
        keeper = recorder()
        self._span = keeper.issue("backward", part=part, mb=self.microbatch) if keeper.enabled else -1

    def _close_span(self) -> None:
        if self._span >= 0:
            recorder().complete(self._span)
            self._span = -1
