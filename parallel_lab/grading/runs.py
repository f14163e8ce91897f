"""A step of a GPT on 2 x 2 x 2 ranks that has a mistake: chapter 11's task to find it.

The ranks compute (`small_gpt`); then the gradients are put together, over tp, over the copies of the tied weight, over
dp and over the microbatches. A `Fault` leaves one of these out or does one too much. All of it is real: learner code
sees the gradients that eight ranks are left with. Ranks import this module.
"""

from collections.abc import Callable
from typing import NamedTuple, SupportsFloat

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading import small_gpt
from parallel_lab.grading.cutting import REPLICATED
from parallel_lab.grading.drivers import from_rank_0
from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.layouts import place
from parallel_lab.grading.rank_side import Case, name
from parallel_lab.grading.small_gpt import SIZES, TIED, M, names_of
from parallel_lab.grading.values import differ

WITHOUT = "attention.key.bias"  # adds the same to all scores of a query: softmax does not see it, its gradient is zero
SMALL = (  # of a block, whole on each rank of tp
    *("attention_norm.weight", "attention_norm.bias", "feed_forward_norm.weight", "feed_forward_norm.bias"),
    *("attention.out.bias", "feed_forward.down.bias"),
)
MATRICES = ("attention.query.weight", "attention.value.weight", "feed_forward.up.weight", "feed_forward.up.bias")


class Fault(NamedTuple):
    """What is planted in a step: its kind, and in what.

    `partial`: not summed over tp. `averaged`: summed and divided by its ranks. `alone`: not averaged over dp, on one
    stage. `untied`: copies not added up. `undivided`: not divided by the microbatches, on one stage. `twice`: divided
    by the data ranks twice. `none`: nothing.
    """

    kind: str
    names: tuple[str, ...] = ()
    stage: int = -1

    def found(self) -> dict:
        """What is to be found of it."""
        names = self.names if self.stage < 0 else tuple(n for n in names_of(self.stage) if not n.endswith(WITHOUT))
        axis = {"partial": "tp", "alone": "dp", "untied": "pp"}.get(self.kind, "")
        factor = {"averaged": 1 / SIZES["tp"], "twice": 1 / SIZES["dp"], "undivided": float(M)}.get(self.kind, 1.0)
        return {"parameters": sorted(names), "factor": factor, "axis": axis}


def planted(numbers: Tensor) -> list[Fault]:
    """The faults of a run's steps."""
    one, other, third, block, fourth, stage = numbers.tolist()

    def of(names: tuple[str, ...], number: int, layer: int) -> str:
        return f"blocks.{layer % 2}.{names[number % len(names)]}"

    return [
        Fault("none"),
        Fault("partial", (of(SMALL, one, block),)),
        Fault("averaged", (of(SMALL, other, block), of(SMALL, third, block + 1))),
        Fault("alone", stage=1),
        Fault("untied", (TIED,)),
        Fault("undivided", stage=stage % 2),
        Fault("twice", (of(MATRICES, fourth, block),)),
    ]


def _put_together(local: dict[str, Tensor], faults: list[Fault], at: dict[str, int], groups: dict) -> list[dict]:
    """For each fault the gradients that the optimizer would step with; they travel end to end in one tensor."""
    sizes = [gradient.numel() for gradient in local.values()]
    over_tp = torch.cat([gradient.flatten() for gradient in local.values()])
    dist.all_reduce(over_tp, group=groups["tp"])
    summed = dict(zip(local, over_tp.split(sizes), strict=True))
    steps = []
    for fault in faults:
        here = fault.stage == at["pp"]
        parts = {each: _over_tp(each, local[each].flatten(), summed[each], fault) for each in local}
        if fault.kind != "untied":
            dist.all_reduce(parts[TIED], group=groups["pp"])
        flat = torch.cat(list(parts.values()))
        if not (here and fault.kind == "alone"):
            dist.all_reduce(flat, group=groups["dp"])
            flat /= SIZES["dp"]
        flat /= 1 if here and fault.kind == "undivided" else M
        steps.append({each: part.view_as(local[each]) for each, part in zip(local, flat.split(sizes), strict=True)})
    return steps


def _over_tp(each: str, local: Tensor, summed: Tensor, fault: Fault) -> Tensor:
    """A gradient after the sum over tp of what is whole on its ranks, where `fault` may be in the parameter."""
    kind = fault.kind if each in fault.names else ""
    is_cut = each.startswith("blocks.") and not each.endswith(REPLICATED)
    gradient = local if is_cut or kind == "partial" else summed
    return gradient / {"averaged": SIZES["tp"], "twice": SIZES["dp"]}.get(kind, 1)


def show_steps(fn: Callable, case: Case, tokens: Tensor, weights: list[Tensor], numbers: Tensor) -> list:
    """`fn(gradients, right, at)` for a step with each fault."""
    tokens, numbers, *weights = from_rank_0([tokens, numbers, *weights])
    coordinates, groups = place(dist.get_rank(), SIZES), small_gpt.groups_of_axes()
    at = {axis: coordinates[axis] for axis in ("pp", "dp", "tp")}
    right = small_gpt.right_gradients(small_gpt.whole_gpt(weights), tokens, at)
    part = small_gpt.cut_gpt(small_gpt.whole_gpt(weights), at, groups["tp"])
    local = small_gpt.local_gradients(part, tokens, at)
    steps = _put_together(local, planted(numbers), at, groups)
    found = []
    for gradients in steps:
        answer = fn(gradients, {each: gradient.clone() for each, gradient in right.items()}, dict(at))
        if type(answer) is not dict:
            raise TypeError(f"expected a dict with parameters, factor and axis, and got {name(answer)}")
        factor = answer.get("factor")
        found.append(answer | ({"factor": float(factor)} if isinstance(factor, SupportsFloat) else {}))
    return found


def to_be_found(outcome: Outcome) -> list:
    """Of `show_steps`."""
    return [[fault.found() for fault in planted(outcome.inputs[0][2])]] * outcome.ranks


@each_rank
def finds(outcome: Outcome, rank: int, where: str, item: str, advice: dict[str, str]) -> None:
    """In each step `item` of the answer is right; `advice` is by the kind of the fault."""
    for step, fault in enumerate(planted(outcome.inputs[0][2])):
        got, right = outcome.results[rank][step].get(item), outcome.expected[rank][step][item]
        if differ(got, right):
            shown = f"{got:.7}" if type(got) is float else repr(got) if type(got) in (str, list) else name(got)
            raise Wrong(f"{where}: step {step}: {item} is {shown}; expected {right!r}", advice.get(fault.kind, ""))
