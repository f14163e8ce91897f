"""What these tests share: models, the oracle's run, and a run on a layout that is held against it."""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.expert_parallel import mixtures
from parallel_lab.hybrid import global_norm, held, parallelize
from parallel_lab.hybrid.norm import clip
from parallel_lab.hybrid.step import gradients, train_step
from parallel_lab.model import GPTConfig, build, train
from parallel_lab.model.data import text_batches
from parallel_lab.model.formulas import parameter_count

GPT2 = GPTConfig(seq=12, layers=2, heads=12, width=24)  # 12 heads: 1, 2, 3 and 4 ranks divide them
LLAMA = dataclasses.replace(
    GPT2, gated=True, norm="rms", positions="rotary", tied=False, bias=False, hidden=36, kv_heads=6
)
EXPERTS = dataclasses.replace(GPT2, experts=4, active_experts=2, mlp_ratio=1)
ADAM: Any = {"lr": 1e-2, "weight_decay": 0.1}
BATCH, STEPS = 8, 3


def whole_model(config, aux=0.05):
    """Every parameter random: biases that start at zero would hide one that is added n times."""
    model, generator = build(config, dtype=torch.float64), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    for mixture in mixtures(model):
        mixture.auxiliary_weight = aux
    return model


def batches(config, ignored=True):
    """Global batches, in which some targets do not count, unevenly over rows and columns."""
    found = list(text_batches(config.seq, BATCH, STEPS))
    for _, targets in found if ignored else ():
        targets[0, :], targets[3, 5:], targets[5, ::2] = -100, -100, -100
    return found


def loss_of(logits, targets):
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def alone(config):
    """One process: losses, gradients of the last step, weights."""
    return train(whole_model(config), batches(config), torch.optim.AdamW, loss=loss_of, **ADAM)


def far(pieces, right, of):
    """How far the pieces of this rank are from those of whole tensors."""
    pairs = [(h.read(right[h.name])[: h.numbers], of(h).detach().cpu().reshape(-1)[: h.numbers]) for h in pieces]
    gaps = [(one - other).abs() for one, other in pairs]
    return max((float(gap.max()) for gap in gaps if gap.numel()), default=0.0)


def distances(config, right, layout, **options):
    """How far losses, gradients and weights are from one process, and the norm of ones from the root of the count."""
    made = parallelize(whole_model(config), layout, **{"clip": None, "microbatches": 2} | ADAM | options)
    *first, last = batches(config)
    losses = [float(train_step(made, *batch).loss) for batch in first]
    count = int((last[1] != -100).sum())
    losses.append(float(gradients(made, *last, count)))
    pieces = [h for h in held(made) if h.stepped is not None]
    off = max(abs(a - b) for a, b in zip(losses, right.losses, strict=True))
    gradient = far(pieces, right.gradients, lambda h: h.gradient)
    expected = torch.stack([g.square().sum() for g in right.gradients.values()]).sum().sqrt()
    norm = abs(float(global_norm(made)) - float(expected))
    clip(made, expected)
    made.optimizer.step()
    weights = far(pieces, right.weights, lambda h: h.stepped)
    return {"loss": off, "gradient": gradient, "norm": norm, "weights": weights, "ones": ones(made)}


def ones(made):
    """The global norm where every gradient is 1, squared, less the number of parameters."""
    for p in made.named_parameters().values():
        p.grad = torch.ones_like(p)
    return abs(float(global_norm(made).square()) - parameter_count(made.config))


def answered(made):
    """How many numbers all ranks answer for."""
    total = torch.tensor(sum(h.numbers for h in held(made) if h.answers))
    dist.all_reduce(total)
    return int(total)
