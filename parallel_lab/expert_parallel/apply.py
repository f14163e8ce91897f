"""The experts of a model cut over the ranks of a group, in place; and how their gradients are divided.

Lepikhin et al. 2020, "GShard", section 3; Singh et al. 2023, "A hybrid tensor-expert-data parallelism approach", for
experts that several ranks hold. Expert parallelism takes no ranks of its own: it cuts experts over ranks that read
different parts of the batch. `dispatch` has what each layer sends; this file puts it into a model and refuses, before
anything is cut, what cannot be cut.

    sharded                experts and the batch
    replicated             everything else
    sent per rank          what `dispatch` says, a layer; once a step the mean of what is replicated, 2 (n-1)/n of it
    held per rank          E/n experts of each mixture, with gradients and moments, and all other parameters

**Gradients.** An expert's gradient has what the tokens of *all* ranks that share the experts say, since they came to
it: nothing but its copies is left to add up, while all other gradients are of this rank's tokens alone. So where every
rank's loss is the mean over its own tokens, and the mean over ranks is meant, replicated gradients are added up and
divided by n, and those of experts are added up over the copies only, and divided by the same n. Averaging them over the
edp ranks that hold the same experts instead leaves them n/edp times too large, and Adam hides it. Where the loss is
already a part of the global one (a sum over this rank's targets, divided by the number of targets in the whole batch),
nothing is divided: replicated gradients are added up over all ranks, experts' over those that hold the same ones.
`reduce_gradients` does either. n counts every rank that has tokens of its own, dp x cp of them, however many share one
set of experts.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.problem import agree
from parallel_lab.agree.same_model import broadcast_tensors, check_same_model
from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.collectives.passes import named, next_pass
from parallel_lab.expert_parallel.balance import mixtures
from parallel_lab.expert_parallel.dispatch import RemoteExperts
from parallel_lab.expert_parallel.router import Drop
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.device import rank_device
from parallel_lab.runtime.group import member

Group = dist.ProcessGroup | None


def plan(layers: int, ranks: int, *, mb: int = 0, reduced: bool = False, axis: str = "") -> Plan:
    """The exchanges of one step through `layers` mixtures of experts: three each forward, and two each backward.

    The part of an op says the how many-th of its kind it is in its phase. A collective needs the one before it on every
    rank. With `reduced` the replicated gradients are added up at the end.

    Raises:
        ValueError: layers or ranks is below 1.
    """
    if min(layers, ranks) < 1:
        raise ValueError(f"layers={layers}, ranks={ranks}: expected at least 1 of each")
    ways = (("forward", ("counts", "dispatch", "combine")), ("backward", ("combine", "dispatch")))
    steps = [(kind, part, phase) for phase, kinds in ways for part in range(layers) for kind in kinds]
    steps += [("all_reduce", 0, "step")] * reduced
    rows = [[Op(rank, kind, part, mb, -1, SEND, axis, phase) for rank in range(ranks)] for kind, part, phase in steps]
    needs = {op: before for before, row in itertools.pairwise(rows) for op in row}
    return Plan.of([op for row in rows for op in row], needs, ranks=ranks)


@keyword_only()
def expert_parallel(
    model: nn.Module,
    *,
    capacity_factor: float | None = None,
    drop: Drop = "position",
    placement: Sequence[Sequence[int]] | None = None,
    group: Group = None,
) -> nn.Module:
    """Cuts each `MixtureOfExperts` of `model` in place, and returns it: this rank keeps its experts of each.

    The model is called with this rank's tokens, as many as it likes. Parameters keep the names of the whole model,
    `blocks.0.feed_forward.experts.5.up.weight` on the rank that has expert 5. All are cut from rank 0's values. Make
    the optimizer afterwards, and call `reduce_gradients` after backward; DDP would refuse ranks with other parameters.

    Args:
        model: a whole model, built in the same way on every rank, on its device.
        capacity_factor: None to drop nothing; else an expert takes of each rank at most this many times what it would
            get if all experts got alike, see `router`.
        drop: which choices an expert with too many of them keeps, the first in the batch (`position`) or those with
            the largest weights (`score`).
        placement: the experts of each rank, as `placement` gives them; by default [r E/n, (r+1) E/n) on rank r.
        group: whose ranks share the experts; by default all.

    Raises:
        ValueError: there are no experts, or they were cut before; n does not divide them; an argument makes no sense;
            ranks have different models or settings. Nothing was cut on any rank.
    """
    group = member(group)
    where = next((p.device for p in model.parameters()), rank_device())
    agree(_problem(model, capacity_factor, drop, placement, group.size()), group, where)
    check_same_model(model, group, capacity_factor=capacity_factor, drop=drop, placement=placement)
    broadcast_tensors([*model.parameters(), *model.buffers()], group)
    for mixture in mixtures(model):
        experts, n = list(mixture.experts.children()), group.size()
        places = placement or [range(r * len(experts) // n, (r + 1) * len(experts) // n) for r in range(n)]
        mixture.experts = nn.ModuleDict({str(number): experts[number] for number in places[group.rank()]})
        mixture.mix = RemoteExperts(mixture.experts, places, capacity_factor, drop, group)
    model.register_forward_pre_hook(lambda *_: next_pass(group), prepend=True)
    return model


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of this rank's experts, by their names in the model, of a model that is cut."""
    own = {id(p) for mixture in mixtures(model) for p in mixture.experts.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


@keyword_only()
@torch.no_grad()
def reduce_gradients(model: nn.Module, *, mean: bool = True, replicas: Group = None, group: Group = None) -> None:
    """Makes this rank's gradients those of the global loss; see the head of this file. Call it once a step.

    A parameter that is trained and has no gradient gets one of zeros, so that ranks agree on what they add up.

    Args:
        model: a model that `expert_parallel` has cut.
        mean: every rank's loss was a mean over its own tokens, of which ranks had equally many. Otherwise losses were
            parts of the global one, and gradients are added up only.
        replicas: the ranks that hold the same experts as this one; None where it is the only one.
        group: all ranks that read parts of the batch; by default all ranks.
    """
    group, own = member(group), expert_parameters(model)
    shared = [p for name, p in model.named_parameters() if name not in own]
    _sum(shared, group)
    if replicas is not None:
        _sum(own.values(), replicas)
    for p in model.parameters():
        if mean and p.grad is not None:
            p.grad /= group.size()


def _sum(parameters: Iterable[nn.Parameter], group: dist.ProcessGroup) -> None:
    """Adds up gradients over the group, those of a dtype in one message."""
    trained = [p for p in parameters if p.requires_grad]
    for dtype in dict.fromkeys(p.dtype for p in trained):
        grads: list[Tensor] = []
        for p in (p for p in trained if p.dtype == dtype):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            grads.append(p.grad)
        flat = end_to_end(grads)
        with named(group, "step"):
            dist.all_reduce(flat, group=group)
        put_back(flat, grads)


def _problem(model: nn.Module, factor: float | None, drop: str, placement: Any, n: int) -> ValueError | None:
    """What cannot be cut, in a sentence."""
    found = mixtures(model)
    if not found:
        return ValueError(f"this {type(model).__name__} has no experts: nothing was cut. Set experts in its config")
    if any(isinstance(mixture.mix, RemoteExperts) for mixture in found):
        return ValueError("the experts of this model were cut before: build a whole one, and cut that")
    if factor is not None and not 0 < factor < float("inf"):
        return ValueError(f"capacity_factor={factor!r}: expected a number above 0, or None to drop nothing")
    if drop not in ("position", "score"):
        return ValueError(f"drop={drop!r}: expected position or score")
    return next(filter(None, (_misplaced(len(mixture.bias), placement, n) for mixture in found)), None)


def _misplaced(experts: int, placement: Any, n: int) -> ValueError | None:
    if placement is None:
        why = f"{experts} experts do not divide by {n} ranks: nothing was cut. Choose a divisor of {experts}"
        return ValueError(f"{why}, or say with placement which rank has which") if experts % n else None
    placed = sorted(number for numbers in placement for number in numbers)
    if len(placement) == n and all(map(len, placement)) and placed == list(range(experts)):
        return None
    each = f"expected {n} lists, one a rank and none empty, in which each of the {experts} experts stands once"
    return ValueError(f"placement={placement}: {each}. Nothing was cut")
