"""1F1B with nothing but messages, on 1 to 6 ranks: torchrun --nproc-per-node 3 examples/pipeline.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

BATCH, M, STEPS, LAYERS, WIDTH = 48, 8, 60, 6, 64  # M microbatches a batch


def exchange(peer, out, like):
    """Sends `out`, receives a tensor like `like`, or both at once: neither side waits for the other to go first."""
    came = None if like is None else torch.empty_like(like)
    ops = [dist.P2POp(call, t, peer) for call, t in ((dist.isend, out), (dist.irecv, came)) if t is not None]
    for work in dist.batch_isend_irecv(ops) if ops and 0 <= peer < dist.get_world_size() else []:
        work.wait()
    return came


def train_batch(stage, images, labels, rank, last):
    """Leaves the gradients of one batch; returns its loss, which the last rank tells the others."""
    like, loss, held = images.new_empty(BATCH // M, WIDTH), images.new_zeros(()), []
    ahead = min(last - rank, M)  # forwards before the first backward can be here
    x = exchange(rank - 1, None, like)
    for i in range(M + ahead):
        if i < M:  # a forward
            x = images.chunk(M)[i] if rank == 0 else x.requires_grad_()
            y = stage(x) if rank < last else cross_entropy(stage(x), labels.chunk(M)[i], reduction="sum") / BATCH
            loss += y.detach() if rank == last else 0
            held.append((x, y))
        gradient = exchange(rank + 1, y.detach() if i < M else None, like if i >= ahead else None)
        if i >= ahead:  # a backward
            x, y = held.pop(0)
            y.backward(gradient if rank < last else None)
        x = exchange(rank - 1, x.grad if i >= ahead else None, like if i + 1 < M else None)
    dist.broadcast(loss, last)
    return loss.item()


rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = torch.device("cuda", local) if gpu else torch.device("cpu")
dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
torch.manual_seed(0)  # all ranks make the same layers, and each keeps its own
layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(LAYERS - 1)] + [nn.Linear(WIDTH, 10)]
stage = nn.Sequential(*layers[rank * LAYERS // n : (rank + 1) * LAYERS // n]).double().to(device)
optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
for rows in torch.arange(STEPS * BATCH, device=device).remainder(1728).split(BATCH):
    loss = train_batch(stage, images[rows] / 16, labels[rows], rank, n - 1)
    optimizer.step()
    optimizer.zero_grad()
    if rank == 0:
        print(f"loss {loss:.9f}", flush=True)
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
