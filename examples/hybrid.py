"""Data times tensor parallelism by hand: torchrun --nproc-per-node 4 examples/hybrid.py 2."""

import os
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, linear


def summed(x, group=None):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


class _Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group, before):
        ctx.group, ctx.before = group, before
        return x.view_as(x) if before else summed(x, group)

    @staticmethod
    def backward(ctx, grad):
        return (summed(grad, ctx.group) if ctx.before else grad), None, None


n, world = int(sys.argv[1]), int(os.environ["WORLD_SIZE"])  # n ranks share a layer; the others are data-parallel
gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
mesh = dist.init_device_mesh(device.type, (world // n, n), mesh_dim_names=("dp", "tp"))  # tp last: ranks 0 and 1 share
dp, tp = mesh.get_group("dp"), mesh.get_group("tp")
place, replica = dist.get_rank(tp), dist.get_rank(dp)
images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
torch.manual_seed(0)  # all ranks draw the same whole model, and each keeps its part along tp
below, up, down = (nn.Linear(*sizes).double().to(device) for sizes in ((64, 64), (64, 128), (128, 10)))
parts = [up.weight.tensor_split(n), up.bias.tensor_split(n), down.weight.tensor_split(n, 1)]  # W is kept transposed
cut, whole = [nn.Parameter(part[place].detach().clone()) for part in parts], [*below.parameters(), down.bias]
optimizer = torch.optim.SGD(whole + cut, lr=0.1, momentum=0.9)
for step, rows in enumerate(torch.randperm(1750, generator=torch.Generator().manual_seed(0)).split(50)):
    mine = rows.tensor_split(world // n)[replica]  # along dp each reads its own rows, along tp all read the same
    x = _Pair.apply(below(images[mine] / 16).relu(), tp, True)
    logits = _Pair.apply(linear(linear(x, *cut[:2]).relu(), cut[2]), tp, False) + down.bias
    loss = cross_entropy(logits, labels[mine], reduction="sum") / len(rows)  # by the whole batch, not by this part
    optimizer.zero_grad()
    loss.backward()
    for p in whole + cut:
        p.grad = summed(p.grad, dp)  # along dp, never along tp; a sum, as the loss was divided already
    squares = [sum(p.grad.square().sum() for p in kind) for kind in (whole, cut)]
    norm = (squares[0] + summed(squares[1], tp)).sqrt()  # what tp cuts is added up, and its copies count once
    nn.utils.clip_grads_with_norm_(whole + cut, 1.0, norm)
    optimizer.step()
    loss = summed(loss.detach(), dp)
    if dist.get_rank() == 0 and step % 5 == 4:
        print(f"step {step + 1} loss {loss.item():.9f}", flush=True)
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
