"""ZeRO, stage 2: each rank keeps the gradients and the optimizer's state of one n-th of the parameters.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.2 (P_os+g).
A rank steps only its partition of the parameters, so it needs only that part of the mean gradient. Gradients are
collected in buckets, in the order in which the backward pass makes them. A full bucket is reduce-scattered while the
backward pass goes on, and freed; after the step, all-gathers hand the new parameters to everyone.

    sharded                gradients and the optimizer's state: moments, and master copies where there are such
    replicated             parameters and buffers
    sent per step and rank (n-1)/n N elements of gradients (for each backward pass outside `no_sync`), and
                           (n-1)/n N of parameters
    held per rank          under Adam 4 + 12/n bytes per parameter in float32; 2 + 14/n in bfloat16 with `master_dtype`;
                           and, while the backward pass runs, at most three buckets

N is the number of trained parameters (the paper's Psi), padded by at most n - 1 elements per bucket; its N_d is n here.
`flat_vector.py` lays the parameters end to end and cuts them, `zero_state.py` saves and loads, `zero_guards.py` refuses
what cannot go well.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import count, product
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only, whole
from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.compat import at_end_of_backward
from parallel_lab.data_parallel import zero1
from parallel_lab.data_parallel.autograd import record_stretch
from parallel_lab.data_parallel.flat_vector import Bucket, partition, sample, step_shards
from parallel_lab.data_parallel.wrapped import Wrapped
from parallel_lab.data_parallel.zero_guards import Guards
from parallel_lab.data_parallel.zero_state import Sharded
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.gather import reduce_scatter
from parallel_lab.trace import recorder, span, tag

UNDER_WAY = 2  # buckets that may be on the wire while the next is filled


def plan(
    n: int,
    buckets: int,
    *,
    microbatches: int = 1,
    first: int = 0,
    no_sync: bool = False,
    broadcasts: int = 0,
    guarded: bool = True,
    axis: str = "",
) -> Plan:
    """One step on `n` ranks: for each microbatch `F`, a `B` and a `reduce_scatter` a bucket; `update`; the gathers.

    The part of a `B`, a `reduce_scatter` and an `all_gather` is the bucket, 0 being the one that is full first. A
    reduce-scatter needs the `B` of its bucket on *every* rank, the update this rank's reduce-scatters; the rest is as
    in `zero1.plan`. `first` is the first microbatch; with `no_sync` all but the last send nothing. `broadcasts`
    messages carry the buffers before each forward: one a dtype. `guarded`: after each backward pass that sends and
    before the update, ranks agree by an `all_reduce` of one flag that nothing is wrong.

    Raises:
        ValueError: n, buckets or microbatches is below 1.
    """
    if min(n, buckets, microbatches) < 1:
        raise ValueError(f"n={n}, buckets={buckets}, microbatches={microbatches}: expected at least 1 of each")
    last, steps = first + microbatches - 1, {}
    for rank, mb in product(range(n), range(first, last + 1)):
        steps |= _passes(n, rank, mb, buckets, broadcasts, mb == last or not no_sync, guarded, axis)
    end = zero1.plan(n, buckets, first=last, guarded=guarded, axis=axis)
    needs = steps | dict(end.needs)
    for update in (op for op in end if op.kind == "update"):
        sent = [op for op in steps if op.rank == update.rank and op.lane == SEND]
        needs[update] = [*sent, *end.needs[update]]
    return Plan.of([*steps, *end], needs)


def _passes(
    n: int, rank: int, mb: int, buckets: int, broadcasts: int, sends: bool, guarded: bool, axis: str
) -> dict[Op, list[Op]]:
    """One rank's forward and backward pass, and what each of its ops needs."""
    send = partial(Op, rank, mb=mb, lane=SEND, axis=axis)
    share = [send("broadcast", k, phase="forward") for k in range(broadcasts)]
    steps = {op: [] for op in share} | {Op(rank, "F", 0, mb, phase="forward"): share}
    for part in range(buckets):
        everyone = [Op(each, "B", part, mb, phase="backward") for each in range(n)]
        steps[everyone[rank]] = []
        if sends:
            steps[send("reduce_scatter", part, phase="backward")] = everyone
    if sends and guarded:
        steps[send("all_reduce", 0, phase="backward")] = []
    return steps


class Zero2(Sharded, Wrapped):
    """Wraps a model and its optimizer: call it like the model, `backward()`, then `step()` and `zero_grad()`.

    After `backward()` the parameters' own `.grad` are None; each rank holds its part of the mean gradient. Several
    backward passes before a step add up, each with its own reduce-scatters, unless inside `no_sync`. Parameters
    and buffers start from rank 0's values; buffers are taken from rank 0 before each forward pass in training.
    Give `optimizer` to learning rate schedulers and to `memory.track`.

    A parameter that a backward pass does not use counts as a gradient of zeros: AdamW still decays its weight. One that
    is frozen later (`requires_grad_(False)`) stands still, and may be thawed again. Where weights are loaded or changed
    between steps, master copies follow with the next step.

    The model is on its device and in its dtype already. `param_groups` are groups of its parameters, as torch takes
    them, so that weights decay and biases do not, say. A bucket is closed once it holds `bucket_bytes`: smaller ones
    leave earlier and hold less, three buckets at most; on gloo larger ones cost less time a byte. `check_finite` looks
    for NaN and infinity: `backward()` then raises on every rank, forgets the gradients, and on the rank that computed
    them says in which parameter. Set it to False for a gradient scaler. All else is as in `Zero1`.

    Raises:
        ValueError: no parameter to train, a wrong `bucket_bytes` or learning rate, an optimizer that looks at whole
            tensors, ranks with different models, or a trained parameter in no group.
        TypeError: a learning rate that is no number.
    """

    @keyword_only("lr")
    def __init__(
        self,
        model: nn.Module,
        optimizer_class: Callable[..., torch.optim.Optimizer],
        *,
        param_groups: Iterable | None = None,
        bucket_bytes: int = 25 * 2**20,
        master_dtype: torch.dtype | None = None,
        check_finite: bool = True,
        guards: Callable[[Any], Any] = Guards,
        group: dist.ProcessGroup | None = None,
        **optimizer_kwargs,
    ) -> None:
        super().__init__(model, group)
        self._guard, self.check_finite = guards(self), check_finite
        params = [p for p in model.parameters() if p.requires_grad] if param_groups is None else list(param_groups)
        groups = self.whole_optimizer(optimizer_class, params, optimizer_kwargs).param_groups
        self.names = {p: name for name, p in model.named_parameters()}
        trained = [(name, p) for p, name in self.names.items() if p.requires_grad]
        buckets = partition(trained[::-1], whole("bucket_bytes", bucket_bytes))
        self._guard.groups(trained, groups)
        self.start_equal(model, [*model.parameters(), *model.buffers()], bucket_bytes=bucket_bytes, dtype=master_dtype)
        self.vectors = [Bucket(named, self.group, master_dtype) for named in buckets]
        self.shard_optimizer(groups)
        self._listen()

    def _listen(self) -> None:
        """Has each parameter say when its gradient is complete."""
        self.running, self._forwards, self._backwards = False, count(), 0
        self._under_way: list[tuple[Bucket, Tensor, dist.Work]] = []
        for bucket in self.vectors:
            for index, parameter in enumerate(bucket.parameters):
                hook = parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket, index))
                self._guard.hooked(parameter, hook)

    def forward(self, *args, **kwargs) -> Any:
        """Runs the model on this rank's part of the batch."""
        if not torch.is_grad_enabled():
            return self.module(*args, **kwargs)
        self._guard.forward(self.module)
        mb = next(self._forwards)
        broadcast_tensors(self.module.buffers() if self.training else (), self.group, mb=mb, phase="forward")
        with span("forward", mb=mb, phase="forward"):
            return self.module(*args, **kwargs)

    def _arrived(self, bucket: Bucket, index: int, _: Tensor) -> None:
        """The gradient of one parameter is complete. The bucket that it fills leaves at once."""
        if not self.running:
            self._begin_backward()
        self._guard.on_gradient(bucket.names[index], index in bucket.missing)
        bucket.take(index, self._sending)
        self._send_full()

    def _begin_backward(self) -> None:
        self.running, self._sending, self._next, self._since_s = True, self.sync, 0, recorder().now()
        for bucket in self.vectors:
            bucket.begin()
        at_end_of_backward(self.end_backward)

    def _send_full(self) -> None:
        """Sends the buckets whose turn it is, up to the first that is not full: the order is the same on every rank."""
        while self._next < len(self.vectors) and not self.vectors[self._next].missing:
            self._since_s = record_stretch(self._next, self._backwards, self._since_s)
            if self._sending:
                self._send(self._next, self.vectors[self._next])
            self._next += 1

    def _send(self, part: int, bucket: Bucket) -> None:
        """Starts the reduce-scatter of a full bucket."""
        while len(self._under_way) >= UNDER_WAY:
            self._land(*self._under_way.pop(0))
        self._guard.on_bucket(bucket, bucket.gradients())
        mine = torch.empty_like(bucket.shard)
        with tag(part=part, mb=self._backwards, phase="backward"):
            self._under_way.append((bucket, mine, reduce_scatter(mine, bucket.gradients(), self.group)))
        sample(self.vectors)

    def _land(self, bucket: Bucket, mean: Tensor, work: dist.Work) -> None:
        """Waits for a bucket's reduce-scatter, adds the mean to this rank's gradients, and frees the bucket."""
        work.wait()
        bucket.buffer = None
        for piece in bucket.pieces:
            if piece.index in bucket.trained:
                gradient = mean[piece.at]
                piece.view.grad = gradient if piece.view.grad is None else piece.view.grad.add_(gradient)
        sample(self.vectors)

    def end_backward(self) -> None:
        """The backward pass is over: sends what is left, with zeros for what it did not use, and waits for all."""
        for bucket in self.vectors:
            for index in sorted(bucket.missing):
                bucket.take(index, self._sending)
        self._send_full()
        while self._under_way:
            self._land(*self._under_way.pop(0))
        self.running = False
        self._backwards += 1
        if self._sending:
            self._guard.after_backward(self._backwards - 1)

    @torch.no_grad()
    def step(self) -> None:
        """Updates this rank's partition and gathers everyone's.

        Raises:
            ValueError: a negative learning rate, gradients that were never sent, or parameters that were moved
                elsewhere (`model.to(...)`) after Zero2 was made. Nothing was changed on any rank.
            TypeError: a learning rate that is no number.
        """
        mb = self._backwards - 1
        self._guard.before_step(mb)
        with span("update", mb=mb, phase="step"):
            step_shards(self.optimizer, self.pieces)
        self.gather(mb)
        self._guard.after_step()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer, of this rank's pieces: what a gradient scaler looks at."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients: this rank's parts, and what `no_sync` has left."""
        for piece in self.pieces:
            piece.view.grad = None
        super().zero_grad(set_to_none)

    def gradient_shards(self) -> list[Tensor]:
        """This rank's pieces of the mean gradient: what `clip_grad_norm_` scales."""
        return [piece.view.grad for piece in self.pieces if piece.view.grad is not None]
