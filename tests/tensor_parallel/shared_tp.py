"""What these tests share: models whose biases and norms are far from zero, groups, and whole gradients."""

import torch
import torch.distributed as dist

from parallel_lab.model import GPTConfig, build
from parallel_lab.tensor_parallel.state import cuts

GPT2 = GPTConfig(seq=8, width=48, heads=12, layers=2)  # 12 heads: 1, 2, 3 and 4 ranks divide them
LLAMA = {"gated": True, "norm": "rms", "positions": "rotary", "tied": False, "bias": False, "hidden": 72}


def whole_model(config, dtype=torch.float64):
    """Every parameter random: biases that start at zero would hide one that is added n times."""
    model, generator = build(config, dtype=dtype), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def worlds(*sizes):
    """Groups of so many of the ranks; None where this rank is not in it."""
    for n in sizes:
        group = dist.new_group(range(n))
        yield n, group if dist.get_rank() < n else None


def gathered(tensor, cut, group):
    parts = [torch.empty_like(tensor) for _ in range(group.size())]
    dist.all_gather(parts, tensor.contiguous(), group=group)
    return cut.whole(parts) if cut else parts


def whole_gradients(model, group):
    """By name: of a cut parameter the whole gradient; of others rank 0's, after all were seen to be equal."""
    found, how = {}, cuts(model)
    for name, p in model.named_parameters():
        found[name] = gathered(p.grad, how.get(name), group)
        if name not in how:
            assert all(torch.equal(found[name][0], other) for other in found[name]), f"{name} differs over the ranks"
            found[name] = found[name][0]
    return found


def apart(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in others)


def message(fn, *args, **options):
    """What `fn` refuses with on this rank; empty where it does not."""
    try:
        fn(*args, **options)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
