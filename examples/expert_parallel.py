"""Experts over ranks, dropless, on 1, 2 or 4 of them: torchrun --nproc-per-node 2 examples/expert_parallel.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, send, receive):  # `send[r]` rows of x to rank r, and `receive[r]` rows from it
        ctx.splits, came = (receive, send), x.new_empty(sum(receive), x.shape[1])
        dist.all_to_all_single(came, x.contiguous(), receive, send)
        return came

    @staticmethod
    def backward(ctx, grad):
        return _Exchange.apply(grad, *ctx.splits), None, None


def mixture(x):
    """Each row of x goes to its 2 of 4 experts with the largest scores, wherever they live, and comes back weighted."""
    scores, chosen = router(x).topk(2)
    order = chosen.flatten().argsort(stable=True)  # by expert, and so by rank
    send = chosen.flatten().bincount(minlength=4).view(n, -1)
    dist.all_to_all_single(receive := torch.empty_like(send), send)  # counts first: nobody knows what will come
    splits = send.sum(1).tolist(), receive.sum(1).tolist()
    came = _Exchange.apply(x[order // 2], *splits)
    whose = torch.arange(len(experts), device=x.device).repeat(n).repeat_interleave(receive.flatten())
    done = torch.zeros_like(came)
    for number, expert in enumerate(experts):  # one that has no rows gets gradients of zero
        done[whose == number] = expert(came[whose == number])
    back, weights = _Exchange.apply(done, *reversed(splits)), scores.softmax(-1).flatten()[order, None]
    return torch.zeros_like(x).index_add(0, order // 2, back * weights)  # multiplied, so that the router learns


rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
device = torch.device("cuda", local) if torch.cuda.device_count() >= n else torch.device("cpu")
dist.init_process_group("gloo" if device.type == "cpu" else "nccl")
images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
torch.manual_seed(0)  # all ranks draw the same experts, and each keeps its own
first, router, last = whole = nn.ModuleList(nn.Linear(64, out) for out in (64, 4, 10)).double().to(device)
drawn = nn.ModuleList(nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)) for _ in range(4))
experts = drawn.double().to(device)[rank * 4 // n : (rank + 1) * 4 // n]
optimizer = torch.optim.SGD([*whole.parameters(), *experts.parameters()], lr=0.1, momentum=0.9)
for rows in torch.arange(960, device=device).split(48):
    x = first(images[rows.chunk(n)[rank]] / 16).relu()
    loss = nn.functional.cross_entropy(last(x + mixture(x)), labels[rows.chunk(n)[rank]], reduction="sum") / len(rows)
    optimizer.zero_grad()
    loss.backward()  # divided by the rows of *all* ranks: an expert has the gradients of all of them, and needs no sum
    for each in [*(p.grad for p in whole.parameters()), shown := loss.detach().clone()]:
        dist.all_reduce(each)
    optimizer.step()
    print(f"loss {shown.item():.9f}\n" if rank == 0 else "", end="", flush=True)
dist.barrier()
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
