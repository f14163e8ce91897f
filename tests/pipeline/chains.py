"""What tests of the executor share: every schedule, a small model in float64, and the same step in one process."""

import copy
import sys

import cloudpickle
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import pipeline

# Ranks get these helpers as copies: importing a file of tests there would load pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

WIDTH = 6
SCHEDULES = {
    "gpipe": pipeline.gpipe,
    "one_f_one_b": pipeline.one_f_one_b,
    "interleaved": lambda p, m: pipeline.interleaved(p, -(-m // p) * p, 2),  # takes whole rounds of p
    "looped_bfs": lambda p, m: pipeline.looped_bfs(p, m, 2),
    "zb_h1": pipeline.zb_h1,
    "zb_h2": pipeline.zb_h2,
    "zb_v": pipeline.zb_v,
    "dualpipe_v": pipeline.dualpipe_v,
}


def chain(stages, seed=0):
    """One small network a stage, with a norm and linears of uneven widths."""
    torch.manual_seed(seed)
    layers = lambda: (nn.Linear(WIDTH, WIDTH + 3), nn.LayerNorm(WIDTH + 3), nn.GELU(), nn.Linear(WIDTH + 3, WIDTH))  # noqa: E731
    return [nn.Sequential(*layers()).double() for _ in range(stages)]


def squares(output, target):
    return (output - target).square().sum()


def data(m, seed=1, rows=(1, 2, 3)):
    """m microbatches of uneven sizes, and targets."""
    dice = torch.Generator().manual_seed(seed)
    shapes = [(rows[mb % len(rows)], WIDTH) for mb in range(m)]
    return tuple([torch.randn(shape, generator=dice, dtype=torch.float64) for shape in shapes] for _ in range(2))


def microbatches_of(plan):
    return 1 + max(op.mb for op in plan)


def own(plan, modules, group=None):
    """This rank's stages of `modules`."""
    return {s: modules[s] for s in pipeline.stages_of(plan, dist.get_rank(group))}


def alone(modules, inputs, targets, loss_fn=squares, count=None):
    """The loss, and in `.grad` of copies of `modules` the gradients, of one process with the whole batch."""
    modules = copy.deepcopy(modules)
    total, terms = 0, 0
    for x, target in zip(inputs, targets, strict=True):
        for module in modules:
            x = module(*x) if isinstance(x, tuple) else module(x)
        total = total + loss_fn(x, target)
        terms += target.numel()
    loss = total / (count or terms)
    loss.backward()
    return loss.item(), modules


def gap(mine, modules, scale=1.0):
    """The largest difference of a gradient from that of one process."""
    pairs = (
        (a, b) for s, module in mine.items() for a, b in zip(module.parameters(), modules[s].parameters(), strict=True)
    )
    none = lambda p: torch.zeros_like(p) if p.grad is None else p.grad  # noqa: E731
    return max((float((none(a) - scale * none(b)).abs().max()) for a, b in pairs), default=0.0)


def clear(mine):
    for module in mine.values():
        module.zero_grad()
