"""What a rank sends in a step of training a model data-parallel: counted at the door, and not by a formula.

A file of its own, so that ranks need not load what `compare` measures quality with.
"""

from collections.abc import Callable, Sequence

import torch.distributed as dist
from torch import nn

from parallel_lab.collectives.flat import end_to_end, put_back
from parallel_lab.model.data import Batch
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.model.reference import to_model
from parallel_lab.runtime import launch
from parallel_lab.trace import span

Wrap = Callable[[nn.Module], nn.Module]
STEP = "compared"


def sent_bytes(models: Sequence[nn.Module], batch: Batch, *, ranks: int = 2, wrap: Wrap | None = None) -> list[int]:
    """What rank 0 sends in one step of each model, in one launch; nothing where nothing is trained.

    Args:
        models: each of which is trained as far as its parameters require a gradient.
        batch: what every rank computes its gradients from.
        ranks: how many there are.
        wrap: makes a model data-parallel on a rank, as `DDP` does; by default one message averages all gradients. What
            it sends to begin with is not counted.
    """
    run = launch(_steps, models, batch, wrap, ranks=ranks, device="cpu", echo=False)
    spans = run.trace.of(0)
    steps = [s for s in spans if s.kind == STEP]
    return [sum(s.sent_bytes for s in spans if one.start_s <= s.start_s < one.end_s) for one in steps]


def _steps(models: Sequence[nn.Module], batch: Batch, wrap: Wrap | None) -> None:
    for model in models:
        trained = [p for p in model.parameters() if p.requires_grad]
        made = wrap(model) if wrap and trained else model
        inputs, targets = to_model(model, batch)
        with span(STEP):
            if trained:
                cross_entropy(made(inputs), targets).backward()
            if trained and not wrap:
                gradients = [p.grad for p in trained if p.grad is not None]
                flat = end_to_end(gradients) / dist.get_world_size()
                dist.all_reduce(flat)
                put_back(flat, gradients)
