"""What protects users from mistakes: what is looked at before, during and after a step.

A technique calls its guard at named seams, which are methods, and is the whole algorithm without it. Those of `DDP` are
here, one class a mistake; those of the sharded stages are in `zero_guards.py` and `zero3_guards.py`. What the guards of
a DDP send is tagged: with phase `setup` where the model is wrapped, `rewrap` where it is taken in anew, and `agree` in
a step.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.weak import WeakTensorKeyDictionary

from parallel_lab.agree.arguments import whole
from parallel_lab.agree.finite import gradient_problem
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import check_same_model
from parallel_lab.compat import holders
from parallel_lab.data_parallel.autograd import tensors_in
from parallel_lab.trace import tag


class Seams:
    """Several guards as one. A guard has a method for each seam at which it has something to do.

    Those of a DDP are:

    before_wrap(ddp)            The model is about to be taken in, by the constructor or again because it changed.
    before_forward(ddp)         A forward pass is about to begin.
    before_buffers(ddp)         Buffers are about to be given to all ranks.
    after_forward(ddp, output)  A forward pass has given `output`.
    admits(ddp, parameter)      Whether the gradient of `parameter`, which has just come, is for this DDP to take.
    before_backward(ddp)        The first gradient of a pass is about to be taken.
    on_bucket(bucket)           A full bucket, with this rank's gradients divided by the ranks, is about to be sent.
    after_backward(ddp)         The means are there.
    """

    def __init__(self, guards: Iterable[Any] = ()) -> None:
        self.all = list(guards)

    def __getattr__(self, seam: str) -> Callable[..., bool]:
        """Any seam: calls that of every guard in turn until one says False; whether none did."""
        return lambda *args, **kwargs: all(
            getattr(guard, seam)(*args, **kwargs) is not False for guard in self.all if hasattr(guard, seam)
        )


def default_guards(check_finite: bool) -> list[Any]:
    """The guards that a DDP has unless it is given others."""
    guards = [SameModel(), ChangedModel(), SharedParameters(), OnePass(), KeptGradients()]
    return [*guards, *[FiniteGradients()] * check_finite, UnusedParameters(), LearnedOrder()]


class SameModel:
    """Refuses arguments that make no sense, and ranks whose models or settings differ."""

    def before_wrap(self, ddp: Any) -> None:
        """Looks at this rank first, and then at what the others have."""
        rank, model = f"rank {ddp.group.rank()}:", ddp.module
        if not isinstance(model, nn.Module):
            raise TypeError(f"{rank} DDP wraps a torch.nn.Module, got {type(model).__name__}")
        if not callable(ddp.hook):
            raise TypeError(f"{rank} hook is {ddp.hook!r}: expected a function of (group, flat) that returns a handle")
        whole("bucket_bytes", ddp.bucket_bytes)
        for name, module in model.named_modules():
            if getattr(module, "sparse", False) and isinstance(module, nn.Embedding | nn.EmbeddingBag):
                raise ValueError(f"{rank} {name!r} has sparse gradients, which fit in no bucket: use sparse=False")
        if not any(p.requires_grad and p.numel() for p in model.parameters()):
            raise ValueError(f"{rank} no parameter requires a gradient: nothing to average, use the model without DDP")
        finite = any(isinstance(guard, FiniteGradients) for guard in ddp.guard.all)
        check_same_model(model, ddp.group, bucket_bytes=ddp.bucket_bytes, overlap=ddp.overlap, check_finite=finite)


class ChangedModel:
    """Takes a model in again that has changed since it was wrapped: thawed, replaced or converted parameters.

    A parameter that was frozen meanwhile keeps its place; it counts as unused.
    """

    def before_forward(self, ddp: Any) -> None:
        """Compares the model with the buckets, where gradients may follow."""
        held = {p: bucket.views[i] for p, (bucket, i) in ddp.place.items()}
        trained = {p: p for p in ddp.module.parameters() if p in held or (p.requires_grad and p.numel())}
        if torch.is_grad_enabled() and _kinds(trained) != _kinds(held):
            for handle in ddp.hooks:
                handle.remove()
            ddp.wrap("rewrap")


def _kinds(tensors: dict[nn.Parameter, Tensor]) -> dict[nn.Parameter, tuple]:
    return {parameter: (t.dtype, t.device, t.shape) for parameter, t in tensors.items()}


class SharedParameters:
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
        if not ddp.averages or not any(other.has(parameter) for other in others):
            return True
        ddp.begin()
        bucket, place = ddp.place[parameter]
        bucket.missing.discard(place)
        bucket.views[place].zero_()
        ddp.came[parameter] = True
        ddp.advance()
        return False


class OnePass:
    """One forward, one backward, and each gradient once."""

    def admits(self, ddp: Any, parameter: nn.Parameter) -> None:
        """Refuses a gradient that came before in this pass, or is to be differentiated again."""
        if not ddp.averages:
            return
        bucket, place = ddp.place[parameter]
        rank, name = f"rank {ddp.group.rank()}", repr(bucket.names[place])
        if ddp.has(parameter):
            raise came_twice(rank, name)
        if parameter.grad is not None and parameter.grad.requires_grad:
            raise ValueError(
                f"{rank}: backward(create_graph=True) asks for a gradient of the gradient of {name}, and a mean over"
                " ranks has none. For a penalty on gradients take torch.autograd.grad(..., create_graph=True) of the"
                " inputs, and then backward() as usual"
            )

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


def came_twice(rank: str, name: str) -> ValueError:
    """The error for the gradient of parameter `name` that comes again in the same backward pass."""
    text = f"{rank}: the gradient of {name} came twice in one backward pass"
    return ValueError(f"{text}; with activation checkpointing, pass use_reentrant=False")


class KeptGradients:
    """A gradient that was set to None and is held by someone else keeps its values: the bucket takes a new buffer."""

    def before_backward(self, ddp: Any) -> None:
        """Looks whether anybody but the bucket and `.grad` holds the memory of a bucket."""
        for bucket in ddp.buckets if ddp.averages else ():
            gradients = [p.grad for p in bucket.parameters if p.grad is not None]
            here = bucket.flat.untyped_storage().data_ptr()
            own = sum(gradient.untyped_storage().data_ptr() == here for gradient in gradients)
            if holders(bucket.flat) > holders(torch.empty(0)) + len(bucket.views) + own:
                bucket.renew()


class FiniteGradients:
    """Raises where a gradient is NaN or infinite, on the rank that it came from, before any weight changes.

    The mean is the same on every rank, so whatever is read off it is known to all. A gradient with NaN or infinity
    makes the first element of its bucket NaN; that element tells every rank, and only then do ranks ask whose it was.
    """

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}  # by bucket: of each of this rank's gradients (parameters,)

    def on_bucket(self, bucket: Any) -> None:
        """NaN or infinity shows in a sum, and 0 times it is NaN. So no value is read from a GPU here."""
        wide = torch.float32 if bucket.flat.dtype == torch.float16 else None  # the range of float16 ends at 65504
        sums = self.sums[bucket.index] = torch.stack([view.sum(dtype=wide) for view in bucket.views])
        bucket.flat[0] += sums.sum() * 0

    def after_backward(self, ddp: Any) -> None:
        """Refuses on the ranks at fault, while the others wait; or on all, if only the hook's mean is not finite."""
        bad = [bucket for bucket in ddp.buckets if not bucket.flat[0].isfinite()]
        if not bad:
            return
        rank, pairs = f"rank {ddp.group.rank()}", [(b.names, self.sums[b.index].isfinite().tolist()) for b in bad]
        mine = [name for names, good in pairs for name, each in zip(names, good, strict=True) if not each]
        with tag(part=0, mb=ddp.mb, phase="agree"):
            agree(gradient_problem(", ".join(mine), rank) if mine else None, ddp.group, bad[0].flat.device)
        raise ValueError(f"{rank}: the mean gradient that the hook gave is NaN or infinite; no weight was changed")


class UnusedParameters:
    """A parameter that no rank used keeps `.grad` None, so that optimizers skip it; with zeros, AdamW would decay it.

    Sends one small all-reduce, but only if the mean of some parameter is all zeros. A rank that used no parameter at
    all takes part in the averaging as well.
    """

    def after_forward(self, ddp: Any, output: Any) -> None:
        """An output that depends on no parameter brings no gradient that could begin the averaging."""
        if torch.is_grad_enabled() and ddp.state == "armed":
            for tensor in tensors_in(output):
                if tensor.requires_grad and not _depends(tensor, ddp.place):
                    tensor.register_hook(lambda _: ddp.begin())

    def after_backward(self, ddp: Any) -> None:
        """Takes `.grad` away again from those that nobody used."""
        zeros = [bucket.parameters[place] for bucket in ddp.buckets for place in _zeros(bucket)]
        if not zeros:
            return
        device = ddp.buckets[0].flat.device
        used = torch.tensor([ddp.came.get(parameter, False) for parameter in zeros], dtype=torch.uint8, device=device)
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
    nodes, seen = [get_gradient_edge(tensor).node], set()
    for node in nodes:
        if getattr(node, "variable", None) in parameters:
            return True
        new = {each for each, _ in node.next_functions if each} - seen
        nodes += new
        seen |= new
    return False


class LearnedOrder:
    """After the first averaged pass, buckets are cut in the order in which rank 0's gradients came (section 6.2.1).

    The reverse of the order of registration is a guess; this is what was seen. All ranks adopt it.
    """

    def before_wrap(self, ddp: Any) -> None:
        """The model is new: its order is not known."""
        self.learned = False

    def after_backward(self, ddp: Any) -> None:
        """Adopts rank 0's order. Where rank 0 only shadows the others in `join`, that is the one of now."""
        if self.learned or len(ddp.buckets) == 1:
            return
        self.learned = True
        now = [(bucket.names[i], p) for p, (bucket, i) in ddp.place.items()]
        number = {p: k for k, p in enumerate(ddp.place)}
        order = torch.tensor([number[p] for p in {**ddp.came, **ddp.place}], device=ddp.buckets[0].flat.device)
        with tag(part=2, mb=ddp.mb, phase="agree"):
            dist.broadcast(order, group=ddp.group, group_src=0)
        if order.tolist() != sorted(number.values()):
            ddp.cut([now[k] for k in order.tolist()])
            for parameter, (bucket, place) in ddp.place.items():
                if parameter.grad is not None:
                    bucket.take(place, 1.0)  # the means move into the new buffers
