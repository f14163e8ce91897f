"""ZeRO, stage 2: each rank keeps the gradients and the optimizer's state of one n-th of the parameters.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.2 (P_os+g).
A rank steps only its partition of the parameters, so it needs only that part of the mean gradient. Gradients are
collected in buckets, in the order in which the backward pass makes them. A full bucket is reduce-scattered while the
backward pass goes on, and freed; after the step, all-gathers hand the new parameters to everyone.

    sharded                gradients and the optimizer's state: moments, and master copies where there are such
    replicated             parameters and buffers
    sent a step and rank   (n-1)/n Psi elements of gradients (for each backward pass outside `no_sync`), and
                           (n-1)/n Psi of parameters
    held a rank            under Adam 4 + 12/n bytes a parameter in float32; 2 + 14/n in bfloat16 with `master_dtype`;
                           and, while the backward pass runs, at most three buckets

Psi is the number of trained parameters, padded by at most n - 1 elements a bucket. The paper's N_d is n here.
`flat_vector.py` lays the parameters end to end and cuts them; `zero_guards.py` refuses what cannot go well.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import whole
from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel import checkpoint, zero_state
from parallel_lab.data_parallel.flat_vector import FlatVector, Named, shard_groups, step_shards
from parallel_lab.data_parallel.zero_guards import Guards, NoGuards
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, span, tag

UNDER_WAY = 2  # buckets that may be on the wire while the next is filled


def plan(
    n: int, buckets: int, *, microbatches: int = 1, no_sync: bool = False, guarded: bool = True, axis: str = ""
) -> Plan:
    """One step on `n` ranks: for each microbatch F, then a B and a `reduce_scatter` a bucket; `update`; the gathers.

    The part of a B, a `reduce_scatter` and an `all_gather` is the bucket, 0 being the one that is full first. A
    reduce-scatter needs the B of its bucket on *every* rank; the update needs this rank's reduce-scatters; an
    all-gather needs every rank's update.

    Args:
        n: ranks.
        buckets: how many buckets the parameters make.
        microbatches: backward passes in the step.
        no_sync: whether all of them but the last run inside `no_sync()`, and so send nothing.
        guarded: whether the ranks agree, by an `all_reduce` of one flag after each backward pass that sends and before
            the update, that nothing is wrong on any of them.
        axis: of the mesh.

    Raises:
        ValueError: a number below 1.
    """
    if min(n, buckets, microbatches) < 1:
        raise ValueError(f"n={n}, buckets={buckets}, microbatches={microbatches}: expected at least 1 of each")
    every, last = range(n), microbatches - 1
    rows: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for rank in every:
        op = partial(Op, rank, lane=SEND, axis=axis)
        update, landed = Op(rank, "update", 0, last), []
        for mb in range(microbatches):
            rows.append(Op(rank, "F", 0, mb))
            for part in range(buckets):
                rows.append(Op(rank, "B", part, mb))
                if mb == last or not no_sync:
                    rows.append(op("reduce_scatter", part, mb, phase="backward"))
                    needs[rows[-1]] = [Op(other, "B", part, mb) for other in every]
                    landed.append(rows[-1])
            if guarded and (mb == last or not no_sync):
                rows.append(op("all_reduce", 0, mb, phase="backward"))
                needs[rows[-1]] = list(landed)
        flag = [op("all_reduce", 0, last, phase="step")] * guarded
        gathers = [op("all_gather", part, last, phase="step") for part in range(buckets)]
        rows += [*flag, update, *gathers]
        needs |= {update: [*landed, *flag]} | {gather: [Op(r, "update", 0, last) for r in every] for gather in gathers}
    return Plan.of(rows, needs, ranks=n)


class Bucket:
    """Parameters whose gradients travel together, and the gradients under way.

    Attributes:
        part: its number, in the order in which the backward pass is expected to fill them.
        vector: the parameters.
        trained: the numbers of those that get a gradient in this backward pass; others are frozen, and stand still.
        missing: the numbers of those whose gradient has not come yet.
        buffer: the gradients (numel,); None where there are none.
    """

    def __init__(self, part: int, vector: FlatVector) -> None:
        self.part, self.vector = part, vector
        self.buffer: Tensor | None = None
        self.begin()

    def begin(self) -> None:
        """A backward pass begins: all gradients are missing."""
        trained = [i for i, p in enumerate(self.vector.parameters) if p.requires_grad or p.grad is not None]
        self.trained, self.missing = frozenset(trained), set(trained)

    def gradients(self) -> Tensor:
        """The buffer (numel,), made here if there is none: zeros stand for parameters that are not used."""
        if self.buffer is None:
            self.buffer = torch.zeros_like(self.vector.data)
        return self.buffer

    def take(self, index: int) -> None:
        """Moves 1/n of the gradient of parameter `index` into the buffer, and frees it."""
        parameter = self.vector.parameters[index]
        place = self.vector.view(self.gradients(), index)
        if parameter.grad is not None:  # dividing before the sum keeps a sum of float16 in range
            torch.mul(parameter.grad, 1 / self.vector.group.size(), out=place)
            parameter.grad = None


class Zero2(nn.Module):
    """Wraps a model and its optimizer: call it like the model, `backward()`, then `step()` and `zero_grad()`.

    After `backward()` the parameters' own `.grad` are None; each rank holds its part of the mean gradient. Several
    backward passes before a step add up, each with its own reduce-scatters, unless inside `no_sync`. Parameters
    and buffers start from rank 0's values; buffers are taken from rank 0 before each forward pass in training.

    A parameter that a backward pass does not use counts as a gradient of zeros: AdamW still decays its weight. One that
    is frozen later (`requires_grad_(False)`) stands still, and may be thawed again.

    Args:
        model: on its device and in its dtype already. Parameters that are frozen now stay so, on every rank.
        optimizer_class: updates each element by itself (see `flat_vector.py`).
        positional: nothing; every other argument is given by name.
        param_groups: the parameters in groups, as torch's optimizers take them, so that weights decay and biases do
            not, say; by default all trained parameters in one.
        bucket_bytes: a bucket is closed once it holds so much. Smaller ones leave earlier and hold less, three buckets
            at most; on gloo larger ones cost less time a byte. The default is that of `DDP`.
        master_dtype: of a copy of this rank's pieces that is stepped instead, `torch.float32` for bfloat16 parameters.
        check_finite: look for NaN and infinity in the gradients; `backward()` then raises on every rank, forgets the
            gradients, and on the rank that computed them says in which parameter. False for a gradient scaler.
        group: who shares; the default group if None.
        optimizer_kwargs: for `optimizer_class`, as in `lr=1e-3`.

    Attributes:
        module: the model.
        optimizer: steps this rank's pieces; give it to learning rate schedulers and to `memory.track`.
        buckets: in the order in which they are sent.
        pieces: this rank's, of all buckets.

    Raises:
        ValueError: no parameter to train, a wrong `bucket_bytes` or learning rate, ranks with different models, or a
            trained parameter in no group.
        TypeError: a learning rate that is no number, or an argument without a name.
    """

    guards: ClassVar[type[NoGuards]] = Guards

    def __init__(
        self,
        model: nn.Module,
        optimizer_class: Callable[..., torch.optim.Optimizer],
        *positional: object,
        param_groups: Iterable | None = None,
        bucket_bytes: int = 25 * 2**20,
        master_dtype: torch.dtype | None = None,
        check_finite: bool = True,
        group: dist.ProcessGroup | None = None,
        **optimizer_kwargs,
    ) -> None:
        super().__init__()
        self._guard = self.guards(self)
        params = [p for p in model.parameters() if p.requires_grad] if param_groups is None else list(param_groups)
        self._guard.arguments(positional, params, optimizer_kwargs)
        whole("bucket_bytes", bucket_bytes)
        like = optimizer_class(params, **optimizer_kwargs)  # checks the arguments, and fills in the defaults
        self.module, self.group, self.check_finite = model, member(group), check_finite
        self._guard.model(model, self.group, bucket_bytes=bucket_bytes, master_dtype=master_dtype)
        self._grouped = [list(each["params"]) for each in like.param_groups]
        self.names = {p: name for name, p in model.named_parameters()}
        trained = [(name, p) for p, name in self.names.items() if p.requires_grad]
        broadcast_tensors([*(p for p in model.parameters() if not p.requires_grad), *model.buffers()], self.group)
        self.vectors = [FlatVector(named, self.group, master_dtype) for named in fill(trained[::-1], bucket_bytes)]
        self.buckets = [Bucket(part, vector) for part, vector in enumerate(self.vectors)]
        self.pieces = [piece for vector in self.vectors for piece in vector.pieces]
        self.optimizer = optimizer_class(shard_groups(like.param_groups, self.pieces), **optimizer_kwargs)
        self._sync, self._running = True, False
        self._forwards, self._backwards = 0, 0
        self._under_way: list[tuple[Bucket, Tensor, dist.Work]] = []
        for bucket in self.buckets:
            for index, parameter in enumerate(bucket.vector.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket, index))

    def forward(self, *args, **kwargs) -> Any:
        """Runs the model on this rank's part of the batch."""
        if torch.is_grad_enabled():
            self._guard.forward(self.module)
            if self.training:
                broadcast_tensors(self.module.buffers(), self.group)
        with span("forward", mb=self._forwards):
            outputs = self.module(*args, **kwargs)
        self._forwards += torch.is_grad_enabled()
        return outputs

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
        if not self._running:
            self._begin_backward()
        self._guard.on_gradient(bucket.vector.names[index], index in bucket.missing)
        bucket.missing.discard(index)
        if self._sending:
            bucket.take(index)
        self._send_full()

    def _begin_backward(self) -> None:
        self._running, self._sending, self._next = True, self._sync, 0
        for bucket in self.buckets:
            bucket.begin()
        torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)
        self._open_span()

    def _send_full(self) -> None:
        """Starts the reduce-scatters of the buckets whose turn it is, up to the first that is not full."""
        while self._next < len(self.buckets) and not self.buckets[self._next].missing:
            recorder().complete(self._span)
            if self._sending:
                self._send(self.buckets[self._next])
            self._next += 1
            if self._next < len(self.buckets):
                self._open_span()

    def _send(self, bucket: Bucket) -> None:
        while len(self._under_way) >= UNDER_WAY:
            self._land(*self._under_way.pop(0))
        self._guard.on_bucket(bucket.vector, bucket.gradients())
        with tag(part=bucket.part, mb=self._backwards, phase="backward"):
            self._under_way.append((bucket, *bucket.vector.reduce_scatter(bucket.gradients())))
        self._sample()

    def _land(self, bucket: Bucket, mean: Tensor, work: dist.Work) -> None:
        """Waits for a bucket's reduce-scatter, adds the mean to this rank's gradients, and frees the bucket."""
        work.wait()
        bucket.buffer = None
        for piece in bucket.vector.pieces:
            if piece.index in bucket.trained:
                gradient = mean[piece.at]
                piece.view.grad = gradient if piece.view.grad is None else piece.view.grad.add_(gradient)
        self._sample()

    def _end_backward(self) -> None:
        """Sends what is left, with zeros for what was not used, and waits for all of it."""
        for bucket in self.buckets:
            for index in sorted(bucket.missing):
                bucket.missing.discard(index)
                if self._sending:
                    bucket.take(index)
        self._send_full()
        while self._under_way:
            self._land(*self._under_way.pop(0))
        self._running = False
        self._backwards += 1
        if self._sending:
            self._guard.after_backward(self._backwards - 1)

    @torch.no_grad()
    def step(self) -> None:
        """Updates this rank's partition and gathers everyone's.

        Raises:
            ValueError: a negative learning rate, or parameters that were moved elsewhere (`model.to(...)`) after Zero2
                was made. Nothing was changed on any rank.
            TypeError: a learning rate that is no number.
        """
        mb = self._backwards - 1
        self._guard.before_step(mb)
        with span("update", mb=mb):
            step_shards(self.optimizer, self.pieces)
        works = []
        for bucket in self.buckets:
            with tag(part=bucket.part, mb=mb, phase="step"):
                works.append(bucket.vector.all_gather())
        for work in works:
            work.wait()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients: this rank's parts, and what `no_sync` has left."""
        for piece in self.pieces:
            piece.view.grad = None
        super().zero_grad(set_to_none)

    def abandon(self) -> None:
        """Ends a backward pass that raised: sends its buckets, for which other ranks may wait, and forgets gradients."""
        if self._running and torch._C._current_graph_task_id() < 0:  # no backward pass runs on this thread
            self._end_backward()
            self.zero_grad()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer, of this rank's pieces, as learning rates and gradient scalers need them."""
        return self.optimizer.param_groups

    def grouped(self) -> list[list[nn.Parameter]]:
        """The parameters of each group, whole."""
        return self._grouped

    def gradient_shards(self) -> list[Tensor]:
        """This rank's pieces of the mean gradient: what `clip_grad_norm_` scales."""
        return [piece.view.grad for piece in self.pieces if piece.view.grad is not None]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model: names have no prefix, so it loads without Zero2 too."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model; master copies follow. Every rank must load the same."""
        result = self.module.load_state_dict(*args, **kwargs)
        with torch.no_grad():
            for piece in self.pieces:
                piece.shard.copy_(piece.view)
        return result

    def shard_state(self) -> checkpoint.Shard:
        """What this rank holds, weights and moments, in the form of `checkpoint.py`; every rank has to save its own."""
        return zero_state.shard_state(self, dict(self.module.named_buffers()))

    def load_shard_state(self, shards: checkpoint.Shard | Iterable[checkpoint.Shard]) -> None:
        """Takes over this rank's part of `shards`, see `zero_state.load_shard_state`. All ranks have to call it."""
        zero_state.load_shard_state(self, shards, dict(self.module.named_buffers()))

    def _open_span(self) -> None:
        self._span = recorder().issue("backward", tagged=False, part=self._next, mb=self._backwards)

    def _sample(self) -> None:
        """Notes the bytes of the buckets, for the picture of memory over time."""
        if recorder().enabled:
            held = sum(bucket.buffer.nbytes for bucket in self.buckets if bucket.buffer is not None)
            recorder().sample(held, "buckets")


def fill(named: Iterable[Named], bucket_bytes: int) -> Iterator[list[Named]]:
    """Cuts `named` into buckets, in order; one is closed once it holds `bucket_bytes`, or the dtype changes."""
    bucket: list[Named] = []
    for name, parameter in named:
        if bucket and (bucket[0][1].dtype, bucket[0][1].device) != (parameter.dtype, parameter.device):
            yield bucket
            bucket = []
        bucket.append((name, parameter))
        if sum(p.nbytes for _, p in bucket) >= bucket_bytes:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
