"""What these tests share: models with experts that differ, groups, and steps in one process and in many."""

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F

from parallel_lab.expert_parallel import expert_parallel, mixtures, reduce_gradients, update_bias
from parallel_lab.model import GPTConfig, build
from parallel_lab.model.data import share, text_batches

MOE = GPTConfig(seq=6, width=16, heads=4, layers=2, hidden=24, experts=12, active_experts=2)  # 1 to 4 ranks divide 12
LLAMA = {"gated": True, "norm": "rms", "positions": "rotary", "tied": False, "bias": False, "kv_heads": 2}
ADAM = {"lr": 1e-2, "weight_decay": 0.1}


def variant(**options):
    return replace(MOE, **options)


def whole_model(config, dtype=torch.float64):
    """Every parameter random, routers far from equal scores."""
    model, generator = build(config, dtype=dtype), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            size = 1.0 if "router" in name else 0.2
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def all_to_expert_0(model):
    """Every token chooses expert 0 first, whatever its scores."""
    for mixture in mixtures(model):
        mixture.bias[0] = 10
    return model


def worlds(*sizes):
    """Groups of so many of the ranks, by size; None where this rank is not in it."""
    groups = {n: dist.new_group(range(n)) for n in sizes}
    return {n: group if dist.get_rank() < n else None for n, group in groups.items()}


def part_of_loss(model, x, y, targets):
    """The sum over these targets, over the number of all."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum") / targets


def steps(model, batches, group=None, *, weight=0.0, rate=0.0, optimizer=None, replicas=None):
    """Losses of some steps of AdamW, each rank with its share of each batch; without a group, all of it."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), **ADAM)
    losses = []
    for x, y in batches:
        mine = share(len(x), group.rank(), group.size()) if group else slice(None)
        for mixture in mixtures(model):
            mixture.auxiliary_weight, mixture.auxiliary_sequences = weight, len(x)
        optimizer.zero_grad()
        loss = part_of_loss(model, x[mine], y[mine], y.numel())
        loss.backward()
        loss = loss.detach()
        if group:
            reduce_gradients(model, mean=False, replicas=replicas, group=group)
            dist.all_reduce(loss, group=group)
            update_bias(model, rate=rate, group=group)
        else:
            follow_bias(model, rate)
        losses.append(loss.item())
        optimizer.step()
    return losses


def follow_bias(model, rate):
    """`update_bias` for one process, written again."""
    for mixture in mixtures(model):
        mean = mixture.load.double().mean()
        mixture.bias += rate * ((mixture.load < mean).double() - (mixture.load > mean).double())
        mixture.load.zero_()


def cut(config, group, change=lambda model: model, **options):
    return expert_parallel(change(whole_model(config)), group=group, **options)


def apart(mine, whole):
    """The largest distance of this rank's parameters and gradients from those of the whole model; and their names."""
    right = dict(whole.named_parameters())
    values, gradients = 0.0, 0.0
    for name, p in mine.named_parameters():
        assert p.grad is not None, f"{name} has no gradient"
        of_whole = right[name].grad
        of_whole = torch.zeros_like(p) if of_whole is None else of_whole
        gradients = max(gradients, (p.grad - of_whole).abs().max().item())
        values = max(values, (p - right[name]).abs().max().item())
    return gradients, values, {name for name, _ in mine.named_parameters()}


def batches_of(config, batch, count):
    return list(text_batches(config.seq, batch, count))


def message(fn, *args, **options):
    """What `fn` refuses with on this rank; empty where it does not."""
    try:
        fn(*args, **options)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
