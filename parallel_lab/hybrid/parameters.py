"""What this rank holds of the whole GPT: the one account that the global norm and the checkpoint are built on.

A parameter of the whole GPT reaches a rank through up to three cuts, one after another:

    pp    the stage that has its layer, and the last one too where a tied embedding is its copy
    tp    a *part*: rows or columns, a `Cut`; or all of it (norms, positions, biases after a sum). Or, along ep, an
          expert, all of it
    dp    a *piece*: the elements [start, stop) of the flattened part, which this rank's optimizer steps. With zero=0
          that is the whole part, on every data rank; with zero=1 and 3 the data ranks share it

Several ranks may hold the same piece. Exactly one of them *answers* for it: its squares enter the norm, and it writes
the piece into a checkpoint. So the pieces of all ranks that answer are the model, each number once:
`sum(h.numbers for h in held(parallel) if h.answers)` over all ranks is `parameter_count(config)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from parallel_lab.data_parallel import Zero1, Zero3
from parallel_lab.hybrid.parallel import EXPERT, Parallel
from parallel_lab.tensor_parallel.linear import Cut
from parallel_lab.tensor_parallel.state import cuts

FIRST, COPY = "embedding.tokens.weight", "head.linear.weight"  # of a tied weight

_known: "WeakKeyDictionary[Parallel, list[Held]]" = WeakKeyDictionary()  # it does not change


@dataclass(frozen=True, eq=False)
class Held:
    """What this rank holds of one parameter.

    Attributes:
        name: In the whole GPT, as its `named_parameters()` has it; so a tied head is the embedding.
        parameter: What stands in the stage and has `.grad`: the part, or with zero=3 this rank's rows of it.
        shape: Of the whole parameter.
        cut: How it is cut along tp; None where each rank of tp has all of it.
        tp: Which rank of tp this is.
        expert: The number of the expert that it belongs to; None for all else.
        start: The first element of the flattened part that this rank steps.
        stop: The one after the last; start where it steps none.
        stepped: What the optimizer steps, in any shape, stop - start elements; None for none. With zero=1 it is a view
            of `parameter`: after writing into it, call `refresh`.
        optimizer: Who steps it.
        replicated: The axes along which other ranks hold the same piece.
        answers: Whether this rank is the one among them that counts it and saves it.
    """

    name: str
    parameter: nn.Parameter
    shape: torch.Size
    cut: Cut | None
    tp: int
    expert: int | None
    start: int
    stop: int
    stepped: Tensor | None
    optimizer: torch.optim.Optimizer
    replicated: tuple[str, ...]
    answers: bool

    @property
    def state(self) -> dict[str, Any]:
        """What the optimizer holds of the piece, to be read and written: moments in the shape of `stepped`, counts."""
        return {} if self.stepped is None else self.optimizer.state[self.stepped]

    @property
    def gradient(self) -> Tensor | None:
        """The gradient of the piece (numbers,), a view, without the padding of a part; None where there is none."""
        if self.parameter.grad is None or self.stepped is None:
            return None
        grad = self.parameter.grad.reshape(-1)
        mine = grad if grad.numel() == self.stop - self.start else grad[self.start : self.stop]
        return mine[: self.numbers]

    @property
    def numbers(self) -> int:
        """How many numbers of the whole parameter the piece has; what pads a part at its end is none."""
        return max(0, min(self.stop, self._numbers_of_part()) - self.start)

    def read(self, whole: Tensor) -> Tensor:
        """This rank's piece of a whole tensor (shape), a new tensor (stop - start,); padding is zeros."""
        part = whole if self.cut is None else self.cut.part(whole, self.tp)
        return part.reshape(-1)[self.start : self.stop].clone()

    def write(self, whole: Tensor, values: Tensor) -> None:
        """Puts the values of this piece (stop - start elements) into a whole tensor (shape), in place."""
        place = whole
        if self.cut is not None:
            first = min(self.cut.size, self.tp // self.cut.copies * self.cut.length())
            place = whole.narrow(self.cut.dim, first, min(self.cut.length(), self.cut.size - first))
        part = place.reshape(-1)  # a copy, where the part is made of columns
        part[self.start : self.start + self.numbers] = values.reshape(-1)[: self.numbers].to(whole)
        place.copy_(part.view(place.shape))

    def _numbers_of_part(self) -> int:
        """The numbers of the part, padding left out: rows alone are padded."""
        if self.cut is None:
            return self.shape.numel()
        rows = self.cut.size - self.tp // self.cut.copies * self.cut.length()
        return max(0, min(self.cut.length(), rows)) * self.shape.numel() // self.cut.size


def held(parallel: Parallel) -> list[Held]:
    """What this rank holds, in the order of its stages."""
    if parallel not in _known:
        _known[parallel] = list(_look(parallel))
    return _known[parallel]


def _look(parallel: Parallel) -> Iterator[Held]:
    names = parallel.named_parameters()
    found = {name: cut for module in parallel.modules() for name, cut in cuts(module).items()}
    pieces = _pieces(parallel)
    yield from (_held(parallel, name, p, found.get(name), *pieces[p]) for name, p in names.items())


def _held(parallel: Parallel, name: str, p: nn.Parameter, cut: Cut | None, *piece: Any) -> Held:
    start, stop, stepped, optimizer, shape = piece
    shape = list(shape)
    if cut is not None:
        shape[cut.dim] = cut.size
    tied = name == COPY and parallel.config.tied
    expert = int(match[1]) if (match := EXPERT.search(name)) else None
    replicated = _replicated(parallel, cut, expert, tied)
    answers = not tied and all(_first(parallel, axis, cut) for axis in replicated)
    where = FIRST if tied else name, p, torch.Size(shape), cut, parallel.place["tp"], expert
    return Held(*where, start, stop, stepped, optimizer, replicated, answers)


def _replicated(parallel: Parallel, cut: Cut | None, expert: int | None, tied: bool) -> tuple[str, ...]:
    """The axes along which other ranks hold the same."""
    along_tp = ["tp"] if cut is None or cut.copies > 1 else []
    data = ["dp_cp" if expert is None else "edp"]
    if parallel.zero == 1 or (parallel.zero == 3 and parallel.shards == parallel.layout.data):
        data = []
    return (*["pp"][: tied * (parallel.layout.pp > 1)], *data, *along_tp)


def _first(parallel: Parallel, axis: str, cut: Cut | None) -> bool:
    """Whether this rank is the first of those along an axis that hold the same."""
    place = parallel.place
    if axis == "tp" and cut is not None:
        return place["tp"] % cut.copies == 0
    if axis in ("dp_cp", "edp") and parallel.zero == 3:  # neighbors share, the runs of them are copies
        return place["dp_cp"] < parallel.shards
    return axis == "pp" or place[axis] == 0


def _pieces(parallel: Parallel) -> dict[nn.Parameter, tuple[int, int, Tensor | None, Any, torch.Size]]:
    """For each parameter its elements [start, stop), what steps them, by whom, and the shape of the part."""
    found: dict[nn.Parameter, Any] = {}
    optimizers = optimizers_of(parallel)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            found |= {p: (0, p.numel(), p, optimizer, p.shape) for p in group["params"]}
        if isinstance(optimizer, Zero1):
            found |= {p: (0, 0, None, optimizer.optimizer, p.shape) for p in optimizer.sharded}
            for each in optimizer.pieces:
                shape = each.parameter.shape
                found[each.parameter] = each.start, each.stop, each.shard, optimizer.optimizer, shape
    for stage in parallel.stages.values():
        if isinstance(stage, Zero3):
            rank = stage.group.rank()
            for shard, slot in stage.slots.items():
                start = slot.first(rank)
                stepped = shard if shard.numel() else None
                found[shard] = start, start + shard.numel(), stepped, optimizers[0], slot.shape  # pyright: ignore
    return found


def optimizers_of(parallel: Parallel) -> list[torch.optim.Optimizer]:
    """The optimizers behind `parallel.optimizer`: two where experts are sharded over other ranks than the rest."""
    return getattr(parallel.optimizer, "optimizers", [parallel.optimizer])


@torch.no_grad()
def refresh(parallel: Parallel) -> None:
    """After `stepped` of some pieces was written into: with zero=1, hands the pieces to the data ranks. All call it."""
    for zero in optimizers_of(parallel):
        if isinstance(zero, Zero1):
            for piece in zero.pieces:
                if piece.shard is not piece.view:
                    piece.view.copy_(piece.shard)
            for vector in zero.vectors:
                vector.all_gather().wait()


def answered(parallel: Parallel) -> Iterator[Held]:
    """The pieces that this rank answers for: over all ranks, each number of the model once."""
    return (each for each in held(parallel) if each.answers)
