"""Tensor parallelism with nothing but collectives: torchrun --nproc-per-node 2 examples/tensor_parallel.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn


def summed(x):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x


class _Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, before):
        ctx.before = before
        return x.view_as(x) if before else summed(x)

    @staticmethod
    def backward(ctx, grad):
        return (summed(grad) if ctx.before else grad), None


def logits(x, up, up_bias, down, down_bias):
    """Two layers by columns and by rows: what lies between them is never whole anywhere."""
    x = nn.functional.linear(_Pair.apply(x, True), up, up_bias).relu()  # x's gradient: what all ranks say, summed
    return _Pair.apply(nn.functional.linear(x, down), False) + down_bias  # the sum; the bias once, after it


def main():
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    rank, n = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
    torch.manual_seed(0)  # all ranks draw the same whole model, and each keeps its part; they read the same batches
    below, up, down = (nn.Linear(*sizes).double().to(device) for sizes in ((64, 64), (64, 128), (128, 10)))
    parts = [up.weight.tensor_split(n), up.bias.tensor_split(n), down.weight.tensor_split(n, 1)]  # W is kept transposed
    cut, whole = [nn.Parameter(part[rank].detach().clone()) for part in parts], [*below.parameters(), down.bias]
    optimizer = torch.optim.SGD(whole + cut, lr=0.1, momentum=0.9)
    for step, rows in enumerate(torch.randperm(1750, generator=torch.Generator().manual_seed(0)).split(50)):
        loss = nn.functional.cross_entropy(logits(below(images[rows] / 16).relu(), *cut, down.bias), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        squares = [sum(p.grad.square().sum() for p in kind) for kind in (whole, cut)]
        norm = (squares[0] + summed(squares[1])).sqrt()  # of the whole model: what is cut is added up over the ranks
        nn.utils.clip_grads_with_norm_(whole + cut, 1.0, norm)
        optimizer.step()
        if rank == 0 and step % 5 == 4:
            print(f"step {step + 1} loss {loss.item():.9f}", flush=True)
    dist.barrier()  # nobody leaves while another still receives
    dist.destroy_process_group()


os._exit(main() or 0)  # gloo's threads may outlive the group: Python may abort
