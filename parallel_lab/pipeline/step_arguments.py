"""What `step` is given: looked at on the rank that uses it, before anything is sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from parallel_lab.agree.arguments import number
from parallel_lab.pipeline.placement import stages_of
from parallel_lab.pipeline.stage import Stage, as_tuple
from parallel_lab.plan import Plan

AVERAGING = ("require_backward_grad_sync", "set_requires_gradient_sync")  # what torch's DDP and FSDP2 have
IGNORED = -100  # a target that is not counted, as in torch.nn.functional.cross_entropy


def of_this_rank(plan: Plan, stages: Any, group: dist.ProcessGroup) -> dict[int, Stage]:
    """The stages of this rank, by number.

    Raises:
        ValueError: the plan is for another number of ranks, or has other stages on this rank.
        TypeError: a stage is no module.
    """
    rank = group.rank()
    if plan.ranks != group.size():
        raise ValueError(
            f"rank {rank}: the plan has {plan.ranks} rows, and the group {group.size()} ranks: one row a rank"
        )
    expected = stages_of(plan, rank)
    if not isinstance(stages, Mapping):
        stages = dict.fromkeys(expected[:1], stages)
    if sorted(stages) != expected:
        text = f"rank {rank}: the plan has the stages {expected} on this rank, and got modules for {sorted(stages)}"
        raise ValueError(f"{text}. Pass {{stage: module}}; pipeline.stages_of(plan, rank) says which")
    for stage, module in stages.items():
        module = module.module if isinstance(module, Stage) else module
        if not isinstance(module, nn.Module):
            text = f"rank {rank}: stage {stage} is {type(module).__name__}, expected a torch.nn.Module or a Stage"
            raise TypeError(text)
        if any(hasattr(module, name) for name in AVERAGING) and not hasattr(module, "expect_backward"):
            raise TypeError(
                f"rank {rank}: stage {stage} is a {type(module).__name__} of PyTorch, which does not know which"
                " backward pass is the last of a step. Wrap it by DDP, Zero2 or Zero3 of parallel_lab.data_parallel"
            )
    return {s: each if isinstance(each, Stage) else Stage(each) for s, each in stages.items()}


def per_microbatch(name: str, values: Any, m: int) -> Sequence[Any]:
    """`values`, if there is one for each microbatch.

    Raises:
        TypeError: they are no list.
        ValueError: they are too many or too few.
    """
    if isinstance(values, Tensor) or not isinstance(values, Sequence):
        text = f"{name} is {type(values).__name__}: expected a list with one for each of the plan's {m} microbatches"
        raise TypeError(f"{text}, as batch.tensor_split({m}) gives it")
    if len(values) != m:
        raise ValueError(f"{len(values)} {name}, and the plan has {m} microbatches: expected one for each")
    return values


def number_of_terms(targets: Iterable[Any], count: float | None) -> float:
    """`count`, or else how many elements of all targets are to be predicted.

    Raises:
        ValueError: there are none, or `count` is not above 0.
        TypeError: a target is no tensor, so that somebody else must count.
    """
    if count is not None:
        if not number("count", count) > 0:
            raise ValueError(f"count={count}: expected how many terms the loss has, a number above 0")
        return float(count)
    for target in targets:
        if not isinstance(target, Tensor | None):
            text = f"a target is {type(target).__name__}, not a tensor: say how many terms there are, count=..."
            raise TypeError(text)
    terms = sum(_terms(target) for target in targets if target is not None)
    if not terms:
        raise ValueError("no microbatch has a target that counts, so there is no mean of their losses")
    return float(terms)


def _terms(target: Tensor) -> int:
    whole = not target.is_floating_point() and not target.is_complex()
    return int((target != IGNORED).sum()) if whole else target.numel()


def loss_of(loss_fn: Callable[[Any, Any], Tensor], output: Any, target: Any) -> Tensor:
    """The sum of one microbatch; of one without a target, a zero that depends on its outputs.

    Raises:
        TypeError: `loss_fn` returned something else than one number.
    """
    if target is None:
        return torch.stack([(y * 0).sum() for y in as_tuple(output)]).sum()
    loss = loss_fn(output, target)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"loss_fn returned {what}: expected the sum of the losses, one number")
    return loss
