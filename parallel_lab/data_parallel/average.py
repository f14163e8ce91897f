"""The simplest way to data parallelism: after the backward pass, one all-reduce per parameter, one after another.

Everything is replicated. It sends what DDP sends, 2 (n-1)/n S bytes per rank, but pays the latency once per parameter,
and nothing overlaps with the backward pass. `DDP` adds buckets and overlap, exchanges buffers, and leaves `.grad` None
where no rank used a parameter; here it becomes zeros.
"""

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import keyword_only
from parallel_lab.agree.finite import require_finite
from parallel_lab.plan import SEND, Op, Plan
from parallel_lab.runtime.group import member
from parallel_lab.trace import tag


def plan(n: int, parameters: int, *, mb: int = 0, axis: str = "") -> Plan:
    """The all-reduces of `average_gradients` on `n` ranks, one for each of the `parameters` that require a gradient."""
    return Plan.of(
        Op(rank, "all_reduce", part, mb, lane=SEND, axis=axis, phase="backward")
        for rank in range(n)
        for part in range(parameters)
    )


@keyword_only()
def average_gradients(model: nn.Module, *, mb: int = 0, group: dist.ProcessGroup | None = None) -> None:
    """Replaces `.grad` of each parameter that requires one by its mean over the ranks; call it after `backward()`.

    Ranks need the same model. A parameter without a gradient on this rank counts as zeros and has one afterwards, also
    where no rank had one. `mb`, the microbatch of the run, names the messages in the trace.

    Raises:
        ValueError: no parameter requires a gradient; or, before anything is sent, a gradient is NaN or infinite.
    """
    group = member(group)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"rank {group.rank()}: no parameter of this model requires a gradient")
    require_finite(model, f"rank {group.rank()}")
    for part, parameter in enumerate(parameters):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad /= group.size()
        with tag(part=part, mb=mb, phase="backward"):
            dist.all_reduce(parameter.grad, group=group)
