"""A network split over two ranks, forward and backward: torchrun --nproc-per-node 2 examples/model_parallel.py."""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

BATCH, ROWS, EPOCHS, WIDTH = 50, 1797, 5, 96  # the last batch of an epoch is smaller


def first_half(part, x, _):
    hidden = part(x)
    dist.send(hidden.detach(), 1)  # a message has no history: autograd ends here
    gradient = torch.empty_like(hidden)
    dist.recv(gradient, 1)
    hidden.backward(gradient)  # goes on where rank 1 stopped


def second_half(part, x, y):
    hidden = x.new_empty(len(x), WIDTH)  # the shape is known on both sides
    dist.recv(hidden, 0)
    hidden.requires_grad_()  # autograd begins here, and backward leaves the gradient in hidden.grad
    loss = nn.functional.cross_entropy(part(hidden), y)
    loss.backward()
    dist.send(hidden.grad, 0)
    return loss.item()


def main():
    rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if n != 2:
        raise SystemExit(f"{n} ranks: this network is cut over two, start it with --nproc-per-node 2")
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
    torch.manual_seed(0)  # both make the same network, and each keeps its part
    net = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, 10)).double()
    part = (net[:2] if rank == 0 else net[2:]).to(device)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9)  # of its own parameters alone
    for epoch in range(EPOCHS):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch)).to(device)
        for rows in order.split(BATCH):
            loss = (first_half, second_half)[rank](part, images[rows] / 16, labels[rows])
            squares = torch.stack([p.grad.square().sum() for p in part.parameters()]).sum()
            dist.all_reduce(squares)  # the norm to clip by is that of all layers
            nn.utils.clip_grads_with_norm_(part.parameters(), 1.0, squares.sqrt())
            optimizer.step()
            optimizer.zero_grad()
        if rank == 1:  # the loss is where the last layer is
            print(f"epoch {epoch} loss {loss:.9f}", flush=True)
    dist.barrier()  # nobody leaves while another still receives
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main() or 0)  # gloo's threads may outlive the group: Python may abort
