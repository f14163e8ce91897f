"""ZeRO, stage 3: each rank keeps one n-th of everything, and gathers a layer's parameters only while it uses them.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 5.3; the cut in
units and the prefetch are those of Zhao et al. 2023, "PyTorch FSDP", sections 3.2 and 3.3.
Before a unit computes, in either direction, its parameters are all-gathered; after it, they are freed. Its gradients
are reduce-scattered as soon as they are complete. While one unit computes, the next is on its way.

Sharded: parameters, gradients, moments. Replicated: buffers.
Sent per rank and step: (n-1)/n Psi in the forward pass, the same in the backward pass, and (n-1)/n Psi of gradients.
The root unit, which is used at both ends of the forward pass, stays gathered until the backward pass is over, and so is
gathered once.
Held per rank under Adam: 16/n bytes a parameter, in float32 as with `compute_dtype`; beside that the root and at most
1 + `prefetch` units gathered, and the gradients of two units under way.
Padding: at most n - 1 elements a unit (for each dtype in it, and for frozen parameters apart).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import whole
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.data_parallel import flat
from parallel_lab.data_parallel import old_checkpoint as checkpoint
from parallel_lab.data_parallel.passes import Passes
from parallel_lab.data_parallel.unit import FlatParameter, Unit
from parallel_lab.data_parallel.units import cut
from parallel_lab.plan import COMPUTE, SEND, Op, Plan
from parallel_lab.runtime.group import member


def plan(n: int, layers: int, prefetch: int = 1) -> Plan:
    """One step of `n` ranks on a chain of `layers` units without a root. ValueError if n or layers is below 1.

    An all-gather has `mb` 0 in the forward and 1 in the backward pass, and so has the `free` that ends its use.
    """
    if n < 1 or layers < 1 or prefetch < 0:
        raise ValueError(f"n={n}, layers={layers}, prefetch={prefetch}: expected at least 1, 1 and 0")
    rows = [op for rank in range(n) for op in _row(rank, layers, prefetch)]
    needs: dict[Op, list[Op]] = {}
    for rank in range(n):
        for mb, kind, order in ((0, "F", range(layers)), (1, "B", range(layers - 1, -1, -1))):
            order = list(order)
            for place, part in enumerate(order):
                gathered = Op(rank, "all_gather", part, mb, lane=SEND)
                needs[Op(rank, kind, part)] = [gathered]
                if place > prefetch:  # room is made by what was freed
                    needs[gathered] = [Op(rank, "free", order[place - prefetch - 1], mb)]
                elif mb == 1:
                    needs[gathered] = [Op(rank, "free", layers - 1, 0)]
        for part in range(layers):
            everyone = [Op(other, "B", part) for other in range(n)]
            needs[Op(rank, "reduce_scatter", part, lane=SEND)] = everyone
    return Plan.of(rows, needs, ranks=n)


def _row(rank: int, layers: int, prefetch: int) -> Iterator[Op]:
    """One rank's ops, in the order of issue."""
    for mb, kind, order in ((0, "F", range(layers)), (1, "B", range(layers - 1, -1, -1))):
        order, asked = list(order), 0
        for place, part in enumerate(order):
            for ahead in order[asked : place + 1 + prefetch]:
                yield Op(rank, "all_gather", ahead, mb, lane=SEND)
            asked = max(asked, place + 1 + prefetch)
            yield Op(rank, kind, part, lane=COMPUTE)
            yield Op(rank, "free", part, mb, lane=COMPUTE)
            if mb:
                yield Op(rank, "reduce_scatter", part, lane=SEND)


class Zero3(nn.Module):
    """Wraps a model: call it like the model; `parameters()` are this rank's flat shards, for any optimizer to step.

    After `backward()` each shard's `.grad` is its share of the mean gradient; several backward passes add up. Every
    rank has to run the same units in the same order. Parameters and buffers start from rank 0's values; buffers are
    taken from rank 0 before each forward pass in training. A parameter that a backward pass does not use counts as a
    gradient of zeros: AdamW still decays its weight.

    Args:
        model: on its device and in its dtype already; it is taken over, and of no use without this wrapper.
        group: who shares; the default group if None.
        compute_dtype: what parameters are gathered in, computed with, and their gradients sent in (`torch.bfloat16`);
            inputs are converted to it. The shards and their gradients keep the model's own dtype.
        prefetch: how many units ahead are gathered while one computes; 0 to gather only when needed.
        units: the modules to gather together; by default each child of every `nn.ModuleList` and `nn.Sequential`.
        check_finite: look for NaN and infinity in the gradients; `backward()` then raises on every rank, forgets the
            gradients, and on the rank that computed them says in which parameter.

    Attributes:
        module: the model. group: the process group. units: what is gathered together, the root last if there is one.

    Raises:
        ValueError: a model without parameters, a negative `prefetch`, ranks with different models, or a module in
            `units` that the model has not. RuntimeError: a parameter used while it is not gathered.
    """

    def __init__(
        self,
        model: nn.Module,
        group: dist.ProcessGroup | None = None,
        compute_dtype: torch.dtype | None = None,
        prefetch: int = 1,
        units: Iterable[nn.Module] | None = None,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        if not any(p.numel() for p in model.parameters()):
            raise ValueError("Zero3 got a model without parameters")
        whole("prefetch", prefetch, 0)
        cuts = cut(model, units)
        self.module, self.group, self.compute_dtype = model, member(group), compute_dtype
        settings = {"units": [each.name for each in cuts], "prefetch": prefetch, "compute_dtype": compute_dtype}
        check_same_model(model, self.group, technique="zero3", **settings)
        broadcast_tensors(model.buffers(), self.group)
        first = {id(p): name for name, p in model.named_parameters()}
        everywhere = model.named_parameters(remove_duplicate=False)
        self._tied = {name: first[id(p)] for name, p in everywhere if name != first[id(p)]}
        self._names = list(model.state_dict())
        self.units = [Unit(part, each, self.group, compute_dtype) for part, each in enumerate(cuts)]
        self.shards = nn.ParameterList(f.shard for f in self._flats())
        self._passes = Passes(self.units, model, self.group, prefetch, check_finite)

    def _flats(self) -> list[FlatParameter]:
        return [f for each in self.units for f in each.flats]

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True):
        """This rank's shards, with their names: what an optimizer is made of."""
        for name, shard in zip(self._shard_names(), self.shards, strict=True):
            yield f"{prefix}.{name}" if prefix else name, shard

    def _shard_names(self) -> list[str]:
        return [f"{each.name}.{k}" for each in self.units for k in range(len(each.flats))]

    def forward(self, *args, **kwargs) -> Any:
        """Runs the model on this rank's share of the batch."""
        if self.training and torch.is_grad_enabled():
            broadcast_tensors(self.module.buffers(), self.group)
        self._passes.begin_forward()
        args = [self._converted(each) for each in args]
        outputs = self.module(*args, **{key: self._converted(each) for key, each in kwargs.items()})
        self._passes.end_forward(outputs)
        return outputs

    def _converted(self, value: Any) -> Any:
        if self.compute_dtype and isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self.compute_dtype)
        return value

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside keep their gradients on the rank, whole; the first one outside sends the sum.

        It saves reduce-scatters and costs the memory of all gradients. Parameters are gathered as ever.
        """
        before, self._passes.sync = self._passes.sync, False
        try:
            yield
        finally:
            self._passes.sync = before

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients: this rank's shares, and what `no_sync` has left."""
        self._passes.forget()

    def gradient_shards(self) -> list[Tensor]:
        """This rank's shares of the mean gradient, padding being zero: what `clip_grad_norm_` scales."""
        return [shard.grad for shard in self.shards if shard.grad is not None]

    @torch.no_grad()
    def full_state_dict(self) -> dict[str, Tensor]:
        """The whole model, as `state_dict()` of the model before it was wrapped; every rank calls it, and gets it.

        Values are those of the shards, in their dtype. One unit at a time is held beside the result.
        """
        whole: dict[str, Tensor] = {}
        for f in self._flats():
            vector = f.shard.new_empty(f.layout.numel)
            flat.all_gather(vector, f.shard.detach(), self.group).wait()
            views = f.layout.views(vector)
            whole |= {slot.name: view.clone() for slot, view in zip(f.layout.slots, views, strict=True)}
        whole |= {name: whole[tied] for name, tied in self._tied.items()}
        whole |= {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        return {name: whole[name] for name in self._names}

    def state_dict(self, optimizer: torch.optim.Optimizer | None = None) -> checkpoint.Shard:  # pyright: ignore[reportIncompatibleMethodOverride] (another form)
        """What this rank holds, and what `optimizer` holds of it, in the form that `checkpoint.py` describes."""
        pieces = {}
        for f in self._flats():
            state = optimizer.state.get(f.shard, {}) if optimizer else {}
            pieces |= checkpoint.pieces_of(f.layout, self.group.rank(), f.shard, state)
        layouts = [f.layout for f in self._flats()]
        return checkpoint.shard("zero3", self.group, layouts, pieces, optimizer, dict(self.module.named_buffers()))

    @torch.no_grad()
    def load_state_dict(self, state_dict: checkpoint.Shard, optimizer: torch.optim.Optimizer | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes over this rank's shard of the weights, and into `optimizer` that of the moments. All ranks call it.

        ValueError that says why, with nothing changed on any rank, for a checkpoint of another world size, model or
        optimizer.
        """
        problem = checkpoint.why_not(state_dict, partial(self.state_dict, optimizer))
        agree(problem, self.group, self.shards[0].device)
        for f in self._flats():
            state = checkpoint.join(f.layout, self.group.rank(), state_dict["pieces"], f.shard.data)
            if optimizer and state:
                optimizer.state[f.shard] = state
        if optimizer:
            checkpoint.restore_groups(optimizer.param_groups, state_dict["groups"])
        for name, buffer in self.module.named_buffers():
            buffer.copy_(state_dict["replicated"][name])
