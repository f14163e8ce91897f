"""float16 on any number of ranks, scale from 2^power: torchrun --nproc-per-node 2 examples/mixed_precision.py 24."""

import os
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 10  # usual are 2,000 steps: this run has 20

rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
device = torch.device("cuda", local) if torch.cuda.device_count() >= n else torch.device("cpu")
dist.init_process_group("gloo" if device.type == "cpu" else "nccl")
images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)  # float32: what is trained
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scale, clean = 2.0 ** float(sys.argv[1]), 0
for rows in torch.arange(960, device=device).split(48):
    mine = rows.chunk(n)[rank]
    narrow = {name: p.half() for name, p in model.named_parameters()}  # cast once a step, kept for backward
    logits = functional_call(model, narrow, (images[mine].half() / 16,))
    loss = nn.functional.cross_entropy(logits.float(), labels[mine], reduction="sum") / len(rows)  # in float32
    optimizer.zero_grad()
    (loss * scale).backward()  # gradients in float16 on the way, added to the float32 parameters' own
    total, overflow = loss.detach().clone(), torch.zeros((), device=device)
    dist.all_reduce(total)
    for p in model.parameters():
        p.grad /= scale  # unscaled before anything looks at it: a sum, a norm
        overflow += (~p.grad.isfinite()).any()
        dist.all_reduce(p.grad)  # a sum in float32
    dist.all_reduce(overflow)  # all ranks skip, or none does: here the sum would tell, under sharding it would not
    if overflow:
        scale, clean = scale * BACKOFF, 0
    else:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        clean += 1
        scale, clean = (scale * GROWTH, 0) if clean == INTERVAL else (scale, clean)
    print(f"loss {total.item():.9f}, scale {scale:g}\n" if rank == 0 else "", end="", flush=True)
dist.barrier()
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
