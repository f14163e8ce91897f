"""ZeRO, stage 2: each rank keeps the gradients and the optimizer's state of one n-th of the parameters.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.2.
A rank steps only its n-th of the parameters, so it needs only that n-th of the mean gradient. Gradients are gathered in
buckets, in the order in which the backward pass makes them; a full bucket is reduce-scattered while the backward pass
goes on, and freed. After the step, an all-gather hands the new parameters to everyone.

Sharded: gradients, moments and master copies. Replicated: parameters and buffers.
Sent per rank and step: (n-1)/n Psi of gradients (for each backward pass outside `no_sync`), (n-1)/n Psi of parameters.
Held per rank under Adam: 4 + 12/n bytes a parameter in float32; 2 + 14/n with bfloat16 parameters and `master_dtype`;
and, while the backward pass runs, at most three buckets.
Padding: at most n - 1 elements a bucket.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import check_rate, rate_problem, whole
from parallel_lab.agree.problem import agree, ask
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.data_parallel import flat
from parallel_lab.data_parallel import old_checkpoint as checkpoint
from parallel_lab.data_parallel.shares import Bucket, fill
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, span

UNDER_WAY = 2  # buckets that may be on the wire while the next is filled


class Zero2(nn.Module):
    """Wraps a model and its optimizer: call it like the model, `backward()`, then `step()` and `zero_grad()`.

    After `backward()` the parameters' own `.grad` are None; each rank holds its share of the mean gradient. Several
    backward passes before a step add up, each with its own reduce-scatters, unless inside `no_sync`. Parameters
    and buffers start from rank 0's values; buffers are taken from rank 0 before each forward pass in training.
    A parameter that a backward pass does not use counts as a gradient of zeros: AdamW still decays its weight.

    Args:
        model: on its device and in its dtype already. Frozen parameters stay as they are, on every rank.
        optimizer_class: updates each element by itself (see `flat.py`). It gets flat shards, so `optimizer_kwargs` hold
            for all parameters alike.
        group: who shares; the default group if None.
        bucket_bytes: gradients are collected until a bucket has at least so many bytes, or the dtype changes.
        master_dtype: of a copy of this rank's share that is stepped instead, `torch.float32` for bfloat16 parameters.
        check_finite: look for NaN and infinity in the gradients; `backward()` then raises on every rank, forgets the
            gradients, and on the rank that computed them says in which parameter.

    Attributes:
        module: the model. optimizer: steps the shards; give it to learning rate schedulers and to `memory.track`.
        group: the process group.

    Raises:
        ValueError: no parameter to train, a wrong `bucket_bytes` or learning rate, ranks with different models.
        TypeError: a learning rate that is no number.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer_class: Callable[..., torch.optim.Optimizer],
        group: dist.ProcessGroup | None = None,
        bucket_bytes: int = 2**20,
        master_dtype: torch.dtype | None = None,
        check_finite: bool = True,
        **optimizer_kwargs,
    ) -> None:
        super().__init__()
        check_rate(optimizer_kwargs)
        whole("bucket_bytes", bucket_bytes)
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError("Zero2 got a model with no parameter to train")
        optimizer_class([nn.Parameter(torch.zeros(1))], **optimizer_kwargs)  # refuses bad arguments before any message
        self.module, self.group, self.check_finite = model, member(group), check_finite
        check_same_model(model, self.group, technique="zero2", bucket_bytes=bucket_bytes, master_dtype=master_dtype)
        broadcast_tensors([*(p for p in model.parameters() if not p.requires_grad), *model.buffers()], self.group)
        self._buckets = [
            Bucket(part, named, self.group, master_dtype) for part, named in enumerate(fill(model, bucket_bytes))
        ]
        self.optimizer = optimizer_class([bucket.master for bucket in self._buckets], **optimizer_kwargs)
        self._sync, self._running, self._problem = True, False, None
        self._under_way: list[tuple[Bucket, Tensor, dist.Work, int]] = []
        for bucket in self._buckets:
            for index, parameter in enumerate(bucket.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket, index))

    def forward(self, *args, **kwargs) -> Any:
        """Runs the model on this rank's share of the batch."""
        if self.training and torch.is_grad_enabled():
            broadcast_tensors(self.module.buffers(), self.group)
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside keep their gradients on the rank, whole; the first one outside sends the sum."""
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    def _arrived(self, bucket: Bucket, index: int, _: Tensor) -> None:
        """One gradient is complete. Buckets leave in their order, which is the same on every rank."""
        if not self._sync:
            return
        if not self._running:
            self._running, self._next = True, 0
            torch.autograd.Variable._execution_engine.queue_callback(self._finish_backward)
        bucket.take(index)
        while self._next < len(self._buckets) and self._buckets[self._next].full:
            self._send(self._buckets[self._next])
            self._next += 1

    def _send(self, bucket: Bucket) -> None:
        """Starts the reduce-scatter of a bucket, once no more than `UNDER_WAY` - 1 others are on the wire."""
        while len(self._under_way) >= UNDER_WAY:
            self._land(*self._under_way.pop(0))
        buffer = bucket.buffer
        assert buffer is not None
        if self.check_finite and self._problem is None:
            self._problem = flat.gradient_problem(buffer, bucket.layout, self.group.rank())
        share = buffer.new_empty(bucket.layout.share)
        index = recorder().issue("reduce", part=bucket.part, lane="recv")
        self._under_way.append((bucket, share, flat.reduce_scatter(share, buffer, self.group), index))
        self._sample()

    def _land(self, bucket: Bucket, share: Tensor, work: dist.Work, index: int) -> None:
        """Waits for a bucket's reduce-scatter, adds the mean to this rank's gradient, and frees the bucket."""
        work.wait()
        recorder().complete(index)
        bucket.buffer = None
        bucket.arrived.clear()
        share /= self.group.size()
        if bucket.mine.grad is None:
            bucket.mine.grad = share
        else:
            bucket.mine.grad += share
        self._sample()

    def _finish_backward(self) -> None:
        """Sends what is left, with zeros for what was not used, and waits for all of it.

        The ranks agree that every gradient was finite while the last buckets are on the wire.
        """
        for bucket in self._buckets[self._next :]:
            for index in set(range(len(bucket.parameters))) - bucket.arrived:
                bucket.take(index)
            self._send(bucket)
        problem, self._problem, self._running = self._problem, None, False
        hear = ask(problem, self.group, self._buckets[0].flat.device) if self.check_finite else None
        while self._under_way:
            self._land(*self._under_way.pop(0))
        if hear:
            try:
                hear()
            except ValueError:
                self.zero_grad()
                raise

    def _sample(self) -> None:
        """Notes the bytes of the buckets, for the picture of memory over time."""
        held = sum(bucket.buffer.nbytes for bucket in self._buckets if bucket.buffer is not None)
        if recorder().enabled:
            recorder().sample(held, "buckets")

    @torch.no_grad()
    def step(self) -> None:
        """Updates this rank's share, bucket by bucket, and gathers each while the next is updated.

        ValueError or TypeError, with nothing changed on any rank, for a wrong learning rate, or parameters that were
        moved elsewhere (`model.to(...)`) after Zero2 was made.
        """
        agree(self._refusal(), self.group, self._buckets[0].flat.device)
        gradients = [bucket.mine.grad for bucket in self._buckets]
        for bucket in self._buckets:
            bucket.mine.grad = None
        works = []
        for bucket, gradient in zip(self._buckets, gradients, strict=True):
            self._update(bucket, gradient)
            works.append(flat.all_gather(bucket.flat, bucket.flat[bucket.place], self.group))
        for bucket, gradient, work in zip(self._buckets, gradients, works, strict=True):
            bucket.mine.grad = gradient
            work.wait()

    def _update(self, bucket: Bucket, gradient: Tensor | None) -> None:
        """Steps one bucket's share; the optimizer passes over the others, which have no gradient meanwhile."""
        if gradient is None:
            return
        with span("update", part=bucket.part):
            bucket.master.grad = gradient.to(bucket.master.dtype)
            self.optimizer.step()
            bucket.master.grad = None
            if bucket.master is not bucket.mine:
                bucket.mine.copy_(bucket.master)

    def _refusal(self) -> Exception | None:
        """Why this rank cannot step; None if it can."""
        for bucket in self._buckets:
            if name := flat.moved(bucket.flat, bucket.layout, bucket.parameters):
                return flat.moved_problem(name, "Zero2")
        return rate_problem(self.optimizer.param_groups)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients: this rank's shares, and what `no_sync` has left."""
        for bucket in self._buckets:
            bucket.mine.grad = None
        super().zero_grad(set_to_none)

    def gradient_shards(self) -> list[Tensor]:
        """This rank's shares of the mean gradient, one a bucket, padding being zero: what `clip_grad_norm_` scales."""
        return [bucket.mine.grad for bucket in self._buckets if bucket.mine.grad is not None]

    def state_dict(self) -> checkpoint.Shard:  # pyright: ignore[reportIncompatibleMethodOverride] (another form)
        """What this rank holds, in the form of `checkpoint.py`; the whole model is `module.state_dict()`."""
        pieces = {}
        for bucket in self._buckets:
            state = self.optimizer.state[bucket.master]
            pieces |= checkpoint.pieces_of(bucket.layout, self.group.rank(), bucket.master, state)
        layouts = [bucket.layout for bucket in self._buckets]
        return checkpoint.shard("zero2", self.group, layouts, pieces, self.optimizer, self._replicated())

    @torch.no_grad()
    def load_state_dict(self, state_dict: checkpoint.Shard) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes over this rank's shard of weights and moments, and what is replicated. All ranks have to call it.

        ValueError that says why, with nothing changed on any rank, for a checkpoint of another world size, model or
        optimizer.
        """
        agree(checkpoint.why_not(state_dict, self.state_dict), self.group, self._buckets[0].flat.device)
        for bucket in self._buckets:
            held = self.optimizer.state[bucket.master]
            held.clear()
            held.update(checkpoint.join(bucket.layout, self.group.rank(), state_dict["pieces"], bucket.master.data))
            bucket.mine.copy_(bucket.master)
            flat.all_gather(bucket.flat, bucket.flat[bucket.place], self.group).wait()
        checkpoint.restore_groups(self.optimizer.param_groups, state_dict["groups"])
        for name, tensor in self._replicated().items():
            tensor.copy_(state_dict["replicated"][name])

    def _replicated(self) -> dict[str, Tensor]:
        frozen = {name: p for name, p in self.module.named_parameters() if not p.requires_grad}
        return frozen | dict(self.module.named_buffers())
