"""A median bears a rank that lies: torchrun --nproc-per-node 3 examples/robust_gradients.py --lie --median.

The last rank of --lie sends -10 times its gradient. An all-reduce adds that in. Here each rank gathers all gradients,
and takes of each coordinate the middle one: it sends (n-1) S bytes instead of 2 (n-1)/n S, and holds n S.
"""

import argparse
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

STEPS, BATCH, RATE = 200, 16, 0.5  # BATCH images on each rank


def aggregate(gradient, median):
    rows = [torch.empty_like(gradient) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, gradient)  # apart from each other: a sum would hide whose is which
    rows = torch.stack(rows)
    return rows.quantile(0.5, dim=0) if median else rows.mean(0)  # the mean of the middle two where n is even


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lie", action="store_true")
    parser.add_argument("--median", action="store_true")
    chosen = parser.parse_args()
    rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double().to(device)
    weights = list(model.parameters())
    for step in range(STEPS):
        order = torch.randperm(1438, generator=torch.Generator().manual_seed(step))  # the same on all ranks
        mine = order[rank * BATCH : (rank + 1) * BATCH].to(device)
        loss = nn.functional.cross_entropy(model(images[mine] / 16), labels[mine])
        gradient = torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])
        if chosen.lie and rank == n - 1:
            gradient *= -10
        with torch.no_grad():
            vector_to_parameters(parameters_to_vector(weights) - RATE * aggregate(gradient, chosen.median), weights)
    if rank == 0:
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(images[1438:] / 16), labels[1438:])
            right = (model(images[1438:] / 16).argmax(1) == labels[1438:]).sum()
        print(f"test loss {loss.item():.9f}, {right.item()} of {len(labels) - 1438} right", flush=True)
    dist.barrier()  # nobody leaves while another still receives
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main() or 0)  # gloo's threads may outlive the group: Python may abort
