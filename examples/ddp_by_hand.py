"""Data parallel training with nothing but collectives: torchrun --nproc-per-node 2 examples/ddp_by_hand.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

BATCH, TRAIN, EPOCHS = 50, 1438, 5


def train_step(model, optimizer, x, y, total):
    """Takes one step on this rank's rows of a batch of `total`; returns the loss of the whole batch."""
    loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / total  # every row counts 1/total, on any rank
    loss.backward()
    parameters = list(model.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]  # not used on this rank: zeros
    flat = torch.cat([g.flatten() for g in gradients] + [loss.detach().view(1)])
    dist.all_reduce(flat)  # one message; a sum, because each rank has divided by the total already
    for p, mean in zip(parameters, flat[:-1].split([p.numel() for p in parameters]), strict=True):
        p.grad = mean.view_as(p)
    nn.utils.clip_grad_norm_(parameters, 1.0)  # after the all-reduce: the same norm on every rank
    optimizer.step()
    optimizer.zero_grad()
    return flat[-1].item()


def main():
    rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
    images = images / 16

    torch.manual_seed(rank)  # even if the ranks begin with different weights ...
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double().to(device)
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)  # ... they go on with those of rank 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(epoch))  # the same on all ranks
        for batch in order.split(BATCH):
            mine = batch[rank::n].to(device)  # every n-th row; shares may differ by one
            loss = train_step(model, optimizer, images[mine], labels[mine], len(batch))
        right = (model(images[TRAIN + rank :: n]).argmax(1) == labels[TRAIN + rank :: n]).sum()
        dist.all_reduce(right)
        if rank == 0:
            print(f"epoch {epoch} loss {loss:.9f} test {right.item()} of {len(labels) - TRAIN}", flush=True)
    dist.barrier()  # nobody leaves while another still receives
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main() or 0)  # gloo's threads may outlive the group: Python may abort
