"""What these tests share: the hooks, a model with sizes that divide by nothing, and groups of fewer ranks."""

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.compress.gradients import QSGD, Cast, OneBit, PowerSGD, RandomK, Sign, TopK
from parallel_lab.runtime import rank_device

HOOKS = {
    "top-k": lambda: TopK(0.1),
    "random-k": lambda: RandomK(0.1),
    "sign": Sign,
    "vote": lambda: Sign(vote=True),
    "1-bit": lambda: OneBit(block=64),
    "QSGD, 2 bits": lambda: QSGD(1, block=64),
    "QSGD, 4 bits": QSGD,
    "QSGD, 8 bits": lambda: QSGD(127),
    "PowerSGD, rank 1": PowerSGD,
    "PowerSGD, rank 3": lambda: PowerSGD(3),
    "bfloat16": Cast,
}


def worlds(*sizes):
    """Groups of so many of the ranks; those with this rank in them."""
    for n in sizes:
        group = dist.new_group(range(n))
        if dist.get_rank() < n:
            yield n, group


def build(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(13, 37), nn.Tanh(), nn.Linear(37, 29), nn.Tanh(), nn.Linear(29, 5)
    return nn.Sequential(*layers).to(rank_device(), dtype)


def batch(step, dtype=torch.float32):
    """This rank's inputs and targets in a step."""
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    x = torch.randn(11, 13, generator=generator, dtype=dtype)
    return x.to(rank_device()), (x[:, :5] - x[:, 5:10].abs()).to(rank_device())


def train(ddp, steps, lr=0.05, first=0):
    """SGD with momentum; the weights as one vector."""
    optimizer = torch.optim.SGD(ddp.parameters(), lr, momentum=0.9)
    for step in range(first, first + steps):
        one_step(ddp, optimizer, step)
    return weights(ddp)


def one_step(ddp, optimizer, step):
    optimizer.zero_grad()
    x, y = batch(step, next(ddp.parameters()).dtype)
    nn.functional.mse_loss(ddp(x), y).backward()
    optimizer.step()


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).cpu()
