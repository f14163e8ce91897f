"""Training that survives kill -9: torchrun --nproc-per-node 4 --max-restarts 3 examples/fault_tolerant.py 60 /tmp/run.

A third argument is the step at which the last rank kills itself, in its first life. With `--nnodes 1:2` and c10d's
rendezvous hosts may leave and join: torchrun starts the ranks again, and they go on from the checkpoint.
"""

import os
import signal
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH, EPOCH, EVERY = 48, 1728, 5  # samples of a step, of all ranks together, and of an epoch; steps between saves


def save(folder, **state):
    torch.save(state, f"{folder}/new.pt")
    with open(f"{folder}/new.pt") as file:
        os.fsync(file)  # the bytes are on the disk before the name is
    os.replace(f"{folder}/new.pt", f"{folder}/last.pt")  # whoever dies leaves the old file or the new one
    os.fsync(descriptor := os.open(folder, os.O_RDONLY))  # the name as well
    os.close(descriptor)


def main(steps, folder, dies=-1):
    rank, n, life = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    dist.init_process_group("gloo")
    os.makedirs(folder, exist_ok=True)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double()
    model, optimizer, start = DistributedDataParallel(net), torch.optim.AdamW(net.parameters(), lr=3e-3), 0
    if os.path.exists(f"{folder}/last.pt"):  # all ranks see it, or none: nobody has saved in this life yet
        saved = torch.load(f"{folder}/last.pt", weights_only=True)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    for step in range(start, int(steps)):
        epoch, place = divmod(step * BATCH, EPOCH)  # the order depends on the step, never on how many ranks there are
        order = torch.randperm(EPOCH, generator=torch.Generator().manual_seed(epoch))
        rows = order[place : place + BATCH].chunk(n)[rank]
        loss = nn.functional.cross_entropy(model(images[rows] / 16), labels[rows], reduction="sum") * n / BATCH
        optimizer.zero_grad()
        if (step, rank, life) == (int(dies), n - 1, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        loss.backward()
        optimizer.step()
        dist.all_reduce(total := loss.detach() / n)
        if rank == 0:
            print(f"life {life} world {n} step {step} loss {total.item():.9f}", flush=True)
            if (step + 1) % EVERY == 0:
                save(folder, model=net.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]) or 0)  # gloo's threads outlive DDP: Python may abort as it cleans up beside them
