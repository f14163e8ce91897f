"""Training that survives kill -9: torchrun --nproc-per-node 4 --max-restarts 3 examples/fault_tolerant.py 60 /tmp/run.

Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1: else the second life of a gloo group may find the addresses of the first. With
`--nnodes 1:2` hosts may leave and join. A third argument is the step at which the last rank kills itself.
"""

import os
import signal
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

BATCH, EPOCH, EVERY = 48, 1728, 5  # samples of a step, of all ranks together, and of an epoch; steps between saves


def save(folder, **state):
    torch.save(state, f"{folder}/new.pt")
    for path in (f"{folder}/new.pt", folder):
        os.fsync(descriptor := os.open(path, os.O_RDONLY))  # first the bytes are on the disk, in the end the name
        os.close(descriptor)
        if path != folder:
            os.replace(path, f"{folder}/last.pt")  # whoever dies leaves the old file or the new one


def main(steps, folder, dies=-1):
    rank, n, life = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    dist.init_process_group("gloo")
    os.makedirs(folder, exist_ok=True)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double()
    model, optimizer, start = DDP(net), torch.optim.AdamW(net.parameters(), lr=3e-3), 0
    if os.path.exists(f"{folder}/last.pt"):  # all ranks see it, or none: nobody has saved in this life
        saved = torch.load(f"{folder}/last.pt", weights_only=True)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    for step in range(start, int(steps)):
        epoch, place = divmod(step * BATCH, EPOCH)  # the order depends on the step, never on how many ranks there are
        rows = torch.randperm(EPOCH, generator=torch.Generator().manual_seed(epoch))[place:][:BATCH].chunk(n)[rank]
        loss = nn.functional.cross_entropy(model(images[rows] / 16), labels[rows], reduction="sum") * n / BATCH
        if (step, rank, life) == (int(dies), n - 1, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(total := loss.detach() / n)
        if rank == 0:
            print(f"life {life} world {n} step {step} loss {total.item():.9f}", flush=True)
            if (step + 1) % EVERY == 0:
                save(folder, model=net.state_dict(), optimizer=optimizer.state_dict(), step=step + 1)


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]) or 0)  # gloo's threads outlive DDP: Python may abort as it cleans up beside them
