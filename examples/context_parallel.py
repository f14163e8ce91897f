"""Ring attention over a cut sequence, on 1, 2 or 4 ranks: torchrun --nproc-per-node 2 examples/context_parallel.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, by):  # to the next rank; gradients travel back to the rank whose keys these are
        ctx.by, came = by, torch.empty_like(x)
        ops = [dist.P2POp(dist.isend, x, (rank + by) % n), dist.P2POp(dist.irecv, came, (rank - by) % n)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        return came

    @staticmethod
    def backward(ctx, grad):
        return _Shift.apply(grad.contiguous(), -ctx.by), None


def ring_attention(query, key, value):
    """Softmax over the keys of all ranks, a block at a time; each is (batch, own tokens, width)."""
    held, total, out, top = torch.stack((key, value)), 0, 0, query.new_tensor(-torch.inf)
    for turn in range(n):  # the first block is a rank's own, where every query sees a key: `top` is finite from then on
        scores = query @ held[0].mT / query.shape[-1] ** 0.5
        scores = scores.masked_fill(places[(rank - turn) % n] > here[:, None], -torch.inf)
        before, top = top, torch.maximum(top, scores.detach().amax(-1, keepdim=True))
        weights, old = (scores - top).exp(), (before - top).exp()  # sums are added when lowered by the same maximum
        total, out = old * total + weights.sum(-1, keepdim=True), old * out + weights @ held[1]
        held = _Shift.apply(held, 1) if turn + 1 < n else held
    return out / total


rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
device = torch.device("cuda", local) if torch.cuda.device_count() >= n else torch.device("cpu")
dist.init_process_group("gloo" if device.type == "cpu" else "nccl")
pixels = torch.tensor(load_digits().data).long().to(device)  # a picture is a sequence of 64 pixels of 17 shades
places = [torch.arange(64, device=device).view(2 * n, -1)[[r, 2 * n - 1 - r]].flatten() for r in range(n)]
here = places[rank]  # zig-zag: chunks r and 2n - 1 - r of 2n, so that all ranks see equally many pairs
targets = pixels.roll(-1, 1)[:, here].masked_fill(here == 63, -100)  # the next pixel: shifted before the cut, not after
torch.manual_seed(0)
net = nn.ModuleList((nn.Embedding(17, 32), nn.Embedding(64, 32), nn.Linear(32, 96), nn.Linear(32, 17)))
optimizer = torch.optim.AdamW(net.double().to(device).parameters(), lr=1e-2)
for rows in torch.arange(960, device=device).split(48):
    x = net[0](pixels[rows][:, here]) + net[1](here)  # what a token is, and where it stands in the whole sequence
    logits = net[3](x + ring_attention(*net[2](x).chunk(3, -1))).mT
    loss = nn.functional.cross_entropy(logits, targets[rows], reduction="sum") / (48 * 63)  # the targets of all ranks
    optimizer.zero_grad()
    loss.backward()
    for each in [*(p.grad for p in net.parameters()), shown := loss.detach().clone()]:
        dist.all_reduce(each)  # the sum, as each rank has divided by the tokens of all
    optimizer.step()
    print(f"loss {shown.item():.9f}\n" if rank == 0 else "", end="", flush=True)
dist.barrier()
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
