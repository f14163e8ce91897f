"""One unit of Zero3: its shards, which stay, and its whole parameters and gradients, which come and go."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.same_model import broadcast_tensors
from parallel_lab.data_parallel import flat
from parallel_lab.data_parallel.flat import Layout
from parallel_lab.data_parallel.released import release
from parallel_lab.data_parallel.units import Cut, Member
from parallel_lab.trace import recorder


class FlatParameter:
    """Parameters of one dtype, all trained or all frozen, as one flat vector of which this rank keeps a share.

    Attributes:
        layout: of the vector. shard: this rank's share (share,), the parameter that an optimizer steps.
        whole: the vector (numel,), in the dtype of computation; freed unless gathered.
        views: each parameter, as a leaf of autograd on the memory of `whole`.
        buffer: the gradients under way (numel,); None where there are none.
    """

    def __init__(self, members: list[Member], group: dist.ProcessGroup, compute_dtype: torch.dtype | None) -> None:
        parameters = [member.parameter for member in members]
        self.layout = Layout.of([(member.name, member.parameter.shape) for member in members], group.size())
        self.place = self.layout.place(group.rank())
        vector = flat.flatten(parameters, self.layout)
        broadcast_tensors([vector], group)
        trained = parameters[0].requires_grad
        self.shard = nn.Parameter(vector[self.place].clone(), requires_grad=trained)
        # Never the vector itself: a view of it would share its version counter, and autograd would take each
        # gathering for a change of what it has saved.
        self.whole = torch.empty_like(vector, dtype=compute_dtype or vector.dtype)
        self.views = [view.data.requires_grad_(trained) for view in self.layout.views(self.whole)]
        flat.free(self.whole)
        self.homes = [member.homes for member in members]
        self.released = [release(member.parameter, member.name) for member in members]
        self.buffer: Tensor | None = None

    def gather(self, group: dist.ProcessGroup) -> tuple[dist.Work, Tensor]:
        """Starts gathering; returns the handle, and what it sends, to be kept until then."""
        flat.allocate(self.whole)
        source = self.shard.detach().to(self.whole.dtype)
        return flat.all_gather(self.whole, source, group), source

    def stand(self, parameters: Iterable[Tensor]) -> None:
        """Puts `parameters` into the places of the model."""
        for homes, parameter in zip(self.homes, parameters, strict=True):
            for module, attribute in homes:
                module._parameters[attribute] = parameter  # type: ignore[assignment] (setattr asks for a Parameter)

    def take(self, index: int) -> None:
        """Moves the gradient of parameter `index` into the buffer and frees it."""
        if self.buffer is None:
            self.buffer = self.whole.new_zeros(self.layout.numel)  # zeros for parameters that are not used
        view, slot = self.views[index], self.layout.slots[index]
        if view.grad is not None:
            self.buffer[slot.start : slot.stop].view(slot.shape).copy_(view.grad)
            view.grad = None

    def add(self, share: Tensor) -> None:
        """Adds this rank's share (share,) of a mean gradient to the shard's."""
        share = share.to(self.shard.dtype)
        if self.shard.grad is None:
            self.shard.grad = share
        else:
            self.shard.grad += share


class Unit:
    """A module whose parameters are gathered and freed together.

    Attributes:
        part: its number. name, module: which module it is. modules: that and all inside it. flats: its flat parameters.
        gathered: whether its parameters stand in the model. arriving: handles of a gathering under way.
        uses: forward passes whose backward pass is still to come. in_backward: whether its backward pass is running.
        pending: gradients that are still to come in this backward pass, as (flat, index).
    """

    def __init__(self, part: int, cut: Cut, group: dist.ProcessGroup, compute_dtype: torch.dtype | None = None) -> None:
        self.part, self.name, self.module = part, cut.name, cut.module
        kinds: dict[tuple, list[Member]] = {}
        for member in cut.members:
            kinds.setdefault((member.parameter.dtype, member.parameter.requires_grad), []).append(member)
        self.flats = [FlatParameter(members, group, compute_dtype) for members in kinds.values()]
        self.modules = set(cut.module.modules())
        self.gathered, self.arriving = False, []
        self.uses, self.in_backward, self.span, self.gather_span = 0, False, -1, -1
        self.pending: set[tuple[int, int]] = set()
        self.expect()

    def expect(self) -> None:
        """Every trained parameter's gradient is to come."""
        self.pending = {(k, i) for k, f in enumerate(self.flats) if f.shard.requires_grad for i in range(len(f.views))}

    @property
    def all_trained(self) -> bool:
        """Whether no parameter is frozen: its last gradient is then its last use."""
        return all(f.shard.requires_grad for f in self.flats)

    @property
    def begun(self) -> bool:
        """Whether gradients have come that were not sent yet."""
        return any(f.buffer is not None or any(v.grad is not None for v in f.views) for f in self.flats)

    @property
    def held_bytes(self) -> int:
        """Bytes of its whole parameters, gathered or on their way."""
        return sum(f.whole.nbytes for f in self.flats) if self.gathered or self.arriving else 0

    @property
    def buffer_bytes(self) -> int:
        """Bytes of its whole gradients that are collected to be sent."""
        return sum(f.buffer.nbytes for f in self.flats if f.buffer is not None)


def gather(unit: Unit, group: dist.ProcessGroup, mb: int) -> None:
    """Starts gathering `unit`, unless that is done or under way; `mb` is 0 in a forward pass, 1 in a backward pass."""
    if unit.gathered or unit.arriving:
        return
    unit.gather_span = recorder().issue("gather", part=unit.part, mb=mb, lane="recv")
    unit.arriving = [f.gather(group) for f in unit.flats]


def arrive(unit: Unit) -> None:
    """Waits until `unit` is gathered and puts its parameters into the model."""
    if unit.gathered:
        return
    for work, _ in unit.arriving:
        work.wait()
    unit.arriving = []
    recorder().complete(unit.gather_span)
    for f in unit.flats:
        f.stand(f.views)
    unit.gathered = True


def free(unit: Unit) -> None:
    """Gives the memory of the whole parameters back; the model holds `Released` in their place."""
    for work, _ in unit.arriving:
        work.wait()
    unit.arriving, unit.gathered = [], False
    for f in unit.flats:
        flat.free(f.whole)
        f.stand(f.released)


class Reduction:
    """The gradients of a unit on their way: they leave its buffers when this is made, and are there after `land`."""

    def __init__(self, unit: Unit, group: dist.ProcessGroup) -> None:
        self.unit, self.ranks = unit, group.size()
        self.span = recorder().issue("reduce", part=unit.part, lane="recv")
        self.sent: list[tuple[FlatParameter, Tensor, dist.Work, Tensor]] = []
        for f in unit.flats:
            if f.buffer is not None:
                share = f.buffer.new_empty(f.layout.share)
                self.sent.append((f, share, flat.reduce_scatter(share, f.buffer, group), f.buffer))
                f.buffer = None  # what comes after this goes into a new one

    @property
    def held_bytes(self) -> int:
        """Bytes of the whole gradients that are on their way."""
        return sum(whole.nbytes for *_, whole in self.sent)

    def land(self) -> None:
        """Waits, adds the mean to the shards' gradients, and frees the whole gradients."""
        while self.sent:
            f, share, work, _ = self.sent.pop(0)
            work.wait()
            f.add(share.div_(self.ranks))
        recorder().complete(self.span)


def problem(unit: Unit, rank: int) -> ValueError | None:
    """What is wrong with the gradients in the buffers of `unit`; None if they are finite."""
    for f in unit.flats:
        if f.buffer is not None and (found := flat.gradient_problem(f.buffer, f.layout, rank)):
            return found
    return None
