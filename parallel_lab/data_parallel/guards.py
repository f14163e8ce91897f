"""What protects users of `DDP` from mistakes, at the seams of the algorithm in `ddp.py`.

A `Guard` has one method a seam. `default_guards()` are the ones that a user gets; `DDP(model, guards=[])` has none, and
averages just as well. What guards send is tagged: with phase `setup` where the model is wrapped, `rewrap` where it is
taken in anew, and `agree` in a step.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from parallel_lab.agree.problem import wait_for_failed_rank
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.compat import holders
from parallel_lab.data_parallel.autograd import came_twice, tensors_in
from parallel_lab.trace import tag


class Guard:
    """Something that looks on at the seams of a `DDP`. It has a method for each seam at which it has something to do.

    before_wrap(ddp)               The model is about to be taken in, by the constructor or again because it changed.
    before_forward(ddp)            A forward pass is about to begin.
    before_buffers(ddp)            Buffers are about to be given to all ranks.
    after_forward(ddp, output)     A forward pass has given `output`.
    admits(ddp, parameter)         Whether the gradient of `parameter`, which has just come, is for this DDP to take.
    before_backward(ddp)           The first gradient of a pass is about to be taken.
    after_gradient(bucket, place)  The gradient of the parameter at `place`, divided by the ranks, is in the buffer.
    on_bucket(bucket)              A full bucket is about to be sent.
    after_backward(ddp)            The means are there.
    """


class Guards:
    """Several guards as one: each seam calls that of every guard in turn; the first that does not admit is the last."""

    def __init__(self, guards: Iterable[Guard]) -> None:
        self.all = list(guards)

    def __getattr__(self, seam: str) -> Callable[..., bool]:
        """Any seam. Its answer is whether no guard said False."""

        def call(*args: Any) -> bool:
            return all(getattr(guard, seam)(*args) is not False for guard in self.all if hasattr(guard, seam))

        return call


def default_guards(check_finite: bool) -> list[Guard]:
    """The guards that a DDP has unless it is given others."""
    guards = [SameModel(), ChangedModel(), SharedParameters(), OnePass(), KeptGradients()]
    return [*guards, *[FiniteGradients()] * check_finite, UnusedParameters(), LearnedOrder()]


class SameModel(Guard):
    """Refuses arguments that make no sense, and ranks whose models or settings differ."""

    def before_wrap(self, ddp: Any) -> None:
        """Looks at this rank first, and then at what the others have."""
        rank, model = f"rank {ddp.group.rank()}:", ddp.module
        if not isinstance(model, nn.Module):
            raise TypeError(f"{rank} DDP wraps a torch.nn.Module, got {type(model).__name__}")
        if not callable(ddp.hook):
            raise TypeError(f"{rank} hook is {ddp.hook!r}: expected a function of (group, flat) that returns a handle")
        size = ddp.bucket_bytes
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{rank} bucket_bytes is {size!r}: expected a whole number of bytes, at least 1")
        for name, module in model.named_modules():
            if getattr(module, "sparse", False) and isinstance(module, nn.Embedding | nn.EmbeddingBag):
                raise ValueError(f"{rank} {name!r} has sparse gradients, which fit in no bucket: use sparse=False")
        if not any(p.requires_grad and p.numel() for p in model.parameters()):
            raise ValueError(f"{rank} no parameter requires a gradient: nothing to average, use the model without DDP")
        check_finite = any(isinstance(guard, FiniteGradients) for guard in ddp.guard.all)
        check_same_model(model, ddp.group, bucket_bytes=size, overlap=ddp.overlap, check_finite=check_finite)


class ChangedModel(Guard):
    """Takes a model in again that has changed since it was wrapped: thawed, replaced or converted parameters.

    A parameter that was frozen meanwhile keeps its place; it counts as unused.
    """

    def before_forward(self, ddp: Any) -> None:
        """Compares the model with the buckets, where gradients may follow."""
        if torch.is_grad_enabled() and self._changed(ddp):
            for handle in ddp.hooks:
                handle.remove()
            ddp.wrap("rewrap")

    def _changed(self, ddp: Any) -> bool:
        found = 0
        for parameter in ddp.module.parameters():
            if parameter in ddp.place:
                found += 1
                bucket, place = ddp.place[parameter]
                if parameter.dtype != bucket.flat.dtype or parameter.device != bucket.flat.device:
                    return True
                if parameter.shape != bucket.views[place].shape:
                    return True
            elif parameter.requires_grad and parameter.numel():
                return True
        return found < len(ddp.place)


class SharedParameters(Guard):
    """Several DDPs may hold one parameter: an encoder that an actor and a critic share, or a model wrapped twice.

    In each backward pass one of them averages it, the first to which its gradient comes. One whose outputs the pass
    does not come to has no part in it.
    """

    owners: Any = WeakTensorKeyDictionary()  # for each parameter the DDPs that hold it

    def before_wrap(self, ddp: Any) -> None:
        """Notes whose the parameters are."""
        for parameter in ddp.module.parameters():
            self.owners.setdefault(parameter, WeakSet()).add(ddp)

    def admits(self, ddp: Any, parameter: nn.Parameter) -> bool:
        """Whether no other DDP takes part in this pass instead, or has taken this gradient already."""
        part = {"idle": 0, "armed": 1}  # in the present pass: none, perhaps one, otherwise surely one
        others = [other for other in self.owners.get(parameter, ()) if other is not ddp and parameter in other.place]
        if any(part.get(other.state, 2) > part.get(ddp.state, 2) for other in others):
            return False
        if not ddp.averages or not any(_has_taken(other, parameter) for other in others):
            return True
        ddp.begin()
        bucket, place = ddp.place[parameter]
        bucket.missing.discard(place)
        bucket.views[place].zero_()
        ddp.advance()
        return False


def _has_taken(ddp: Any, parameter: nn.Parameter) -> bool:
    bucket, place = ddp.place[parameter]
    return ddp.state == "running" and ddp.averages and place not in bucket.missing


class OnePass(Guard):
    """One forward, one backward, and each gradient once."""

    def admits(self, ddp: Any, parameter: nn.Parameter) -> bool:
        """Takes every gradient, but refuses one that came before in this pass, or is to be differentiated again."""
        if not ddp.averages:
            return True
        bucket, place = ddp.place[parameter]
        if ddp.state == "running" and place not in bucket.missing:
            raise came_twice(f"rank {ddp.group.rank()}", repr(bucket.names[place]))
        if parameter.grad is not None and parameter.grad.requires_grad:
            raise ValueError(
                f"rank {ddp.group.rank()}: backward(create_graph=True) asks for a gradient of the gradient of"
                f" {bucket.names[place]!r}, and a mean over ranks has none. For a penalty on gradients take"
                " torch.autograd.grad(..., create_graph=True) of the inputs, and then backward() as usual"
            )
        return True

    def before_backward(self, ddp: Any) -> None:
        """Waits for what a pass that raised has sent. A second pass in `no_sync` counts as a microbatch of its own."""
        for handle in ddp.handles:
            handle.wait()
        if ddp.state == "idle" and not ddp.averages:
            ddp.mb += 1
        elif ddp.state == "idle":
            raise ValueError(
                f"rank {ddp.group.rank()}: this backward pass has no forward pass of its own through the DDP. Either"
                " the wrapped model was called itself (call the DDP, not its .module), or backward ran twice after one"
                " forward: call the DDP once before each backward; add several losses up first, or use no_sync() for"
                " all but one."
            )


class KeptGradients(Guard):
    """A gradient that was set to None and is held by someone else keeps its values: the bucket takes a new buffer."""

    def before_backward(self, ddp: Any) -> None:
        """Looks whether anybody but the bucket and `.grad` holds the memory of a bucket."""
        for bucket in ddp.buckets if ddp.averages else ():
            gradients = [p.grad for p in bucket.parameters if p.grad is not None]
            here = bucket.flat.untyped_storage().data_ptr()
            own = sum(gradient.untyped_storage().data_ptr() == here for gradient in gradients)
            if holders(bucket.flat) > holders(torch.empty(0)) + len(bucket.views) + own:
                bucket.renew()


class FiniteGradients(Guard):
    """Raises where a gradient is NaN or infinite, on the rank that it came from, before any weight changes.

    The mean is the same on every rank, so whatever is read off it is known to all. A gradient with NaN or infinity
    makes the first element of its bucket NaN; that element tells every rank, and only then do ranks ask whose it was.
    """

    def __init__(self) -> None:
        self.sums: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)  # by bucket; each with its parameter's name

    def before_backward(self, ddp: Any) -> None:
        """Forgets what a pass that raised has left."""
        self.sums.clear()

    def after_gradient(self, bucket: Any, place: int) -> None:
        """Adds the gradient up: NaN or infinity anywhere shows in a sum, the cheapest look at every element."""
        view = bucket.views[place]
        wide = torch.float32 if view.dtype == torch.float16 else None  # the range of float16 ends at 65504
        self.sums[bucket.index].append((bucket.names[place], view.sum(dtype=wide)))

    def on_bucket(self, bucket: Any) -> None:
        """0 times a finite sum changes nothing, 0 times any other is NaN. So no value is read from a GPU here."""
        if sums := self.sums[bucket.index]:
            bucket.flat[0] += torch.stack([each for _, each in sums]).sum() * 0

    def after_backward(self, ddp: Any) -> None:
        """Refuses on the ranks at fault, or on all if only the hook's mean is not finite; others wait in a barrier."""
        bad = [bucket for bucket in ddp.buckets if not bucket.flat[0].isfinite()]
        sums, group = [pair for bucket in bad for pair in self.sums[bucket.index]], ddp.group
        self.sums.clear()
        if not bad:
            return
        mine = list(dict.fromkeys(name for name, each in sums if not each.isfinite()))
        flags = torch.zeros(group.size(), dtype=torch.int64, device=bad[0].flat.device)
        flags[group.rank()] = len(mine)
        with tag(part=0, mb=ddp.mb, phase="agree"):
            dist.all_reduce(flags, group=group)
        ranks = flags.nonzero().flatten().tolist()
        if ranks and group.rank() not in ranks:
            wait_for_failed_rank(group, f"gradients of rank {ranks[0]} are NaN or infinite")
        what = f"gradient of {', '.join(map(repr, mine))}" if mine else "mean gradient that the hook gave"
        raise ValueError(
            f"rank {group.rank()}: the {what} has NaN or infinity. The weights of all ranks are as they were before"
            " this step. Look at this rank's batch, the learning rate, or the loss scale; DDP(check_finite=False) lets"
            " it pass."
        )


class UnusedParameters(Guard):
    """A parameter that no rank used keeps `.grad` None, so that optimizers skip it; with zeros, AdamW would decay it.

    Sends one small all-reduce, but only if the mean of some parameter is all zeros. A rank that used no parameter at
    all takes part in the averaging as well.
    """

    def __init__(self) -> None:
        self.unused: set[nn.Parameter] = set()

    def admits(self, ddp: Any, parameter: nn.Parameter) -> bool:
        """Notes that this rank has no gradient for it."""
        if parameter.grad is None:
            self.unused.add(parameter)
        return True

    def after_forward(self, ddp: Any, output: Any) -> None:
        """An output that depends on no parameter brings no gradient that could begin the averaging."""
        if torch.is_grad_enabled() and ddp.state == "armed":
            for tensor in tensors_in(output):
                if tensor.requires_grad and not _depends(tensor, ddp.place):
                    tensor.register_hook(lambda _: ddp.begin())

    def before_backward(self, ddp: Any) -> None:
        """Forgets what a pass that raised has left."""
        self.unused.clear()

    def after_backward(self, ddp: Any) -> None:
        """Takes `.grad` away again from those that nobody used."""
        unused, self.unused = self.unused, set()
        zeros = [bucket.parameters[place] for bucket in ddp.buckets for place in _zeros(bucket)]
        if not zeros:
            return
        device = ddp.buckets[0].flat.device
        used = torch.tensor([parameter not in unused for parameter in zeros], dtype=torch.uint8, device=device)
        with tag(part=1, mb=ddp.mb, phase="agree"):
            dist.all_reduce(used, dist.ReduceOp.MAX, group=ddp.group)
        for parameter, somewhere in zip(zeros, used.tolist(), strict=True):
            if not somewhere:
                parameter.grad = None


def _zeros(bucket: Any) -> Iterator[int]:
    """The places of the parameters whose mean is all zeros. One look at the first elements rules most of them out."""
    first = torch.stack([view.view(-1)[0] for view in bucket.views]).tolist()
    return (place for place, value in enumerate(first) if value == 0 and not bucket.views[place].any())


def _depends(tensor: Tensor, parameters: Any) -> bool:
    """Whether a backward pass from `tensor` comes to one of `parameters`. The search ends at the first."""
    nodes, seen = [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) in parameters:
            return True
        seen.add(node)
        nodes += [each for each, _ in node.next_functions]
    return False


class LearnedOrder(Guard):
    """After the first averaged pass, buckets are cut in the order in which rank 0's gradients came (section 3.2.3).

    The reverse of the order of registration is a guess; this is what was seen. All ranks adopt it.
    """

    def before_wrap(self, ddp: Any) -> None:
        """The model is new: its order is not known."""
        self.order: list[str] | None = []

    def before_backward(self, ddp: Any) -> None:
        """Begins anew after a pass that raised."""
        if self.order is not None:
            self.order = []

    def after_gradient(self, bucket: Any, place: int) -> None:
        """Notes whose gradient came."""
        if self.order is not None:
            self.order.append(bucket.names[place])

    def after_backward(self, ddp: Any) -> None:
        """Adopts rank 0's order. A rank that shadows the others in `join` has none of its own."""
        order, self.order = self.order, None
        if order is None or len(ddp.buckets) == 1:
            return
        now = {name: p for bucket in ddp.buckets for name, p in zip(bucket.names, bucket.parameters, strict=True)}
        number = {name: i for i, name in enumerate(now)}
        wanted = [number[name] for name in dict.fromkeys([*order, *now])]
        message = torch.tensor(wanted, device=ddp.buckets[0].flat.device)
        with tag(part=2, mb=ddp.mb, phase="agree"):
            dist.broadcast(message, group=ddp.group, group_src=0)
        names = [list(now)[i] for i in message.tolist()]
        if names != list(now):
            ddp.cut([(name, now[name]) for name in names])
            for bucket in ddp.buckets:
                for place in range(len(bucket.parameters)):
                    if bucket.parameters[place].grad is not None:
                        bucket.take(place, 1.0)  # the means move into the new buffers
