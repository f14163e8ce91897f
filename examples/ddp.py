"""Data parallel training with DDP, to step 36: torchrun --nproc-per-node 2 examples/ddp.py 36 /tmp/digits.pt."""

import os
import sys
from contextlib import nullcontext
from itertools import islice

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

BATCH, MICROBATCHES, STEPS = 48, 2, 36  # a batch is that of all ranks together; STEPS are an epoch


def main(steps, path):
    rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    images, labels = (torch.tensor(array)[: BATCH * STEPS] for array in load_digits(return_X_y=True))
    data = TensorDataset(images / 16, labels)
    loader = DataLoader(data, batch_size=BATCH // n // MICROBATCHES, sampler=DistributedSampler(data))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double().to(device)
    model = DistributedDataParallel(net)  # gives all ranks the weights of rank 0
    optimizer, start = torch.optim.AdamW(net.parameters(), lr=3e-3), 0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    for step in range(start, int(steps)):
        if step == start or step % STEPS == 0:
            loader.sampler.set_epoch(step // STEPS)  # otherwise every epoch has the same order
            stream = islice(loader, step % STEPS * MICROBATCHES, None)  # a resumed run skips what it has seen
        total = torch.zeros((), dtype=torch.float64, device=device)
        for last in [False] * (MICROBATCHES - 1) + [True]:
            x, y = next(stream)
            with nullcontext() if last else model.no_sync():  # only the last microbatch communicates
                loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device)) / MICROBATCHES
                loss.backward()  # DDP averages over ranks
            total += loss.detach() / n
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)  # of the averaged gradient: the same on all ranks
        optimizer.step()
        optimizer.zero_grad()
        dist.all_reduce(total)  # a rank knows the loss of its own share only
        if rank == 0:
            print(f"step {step} loss {total.item():.9f}", flush=True)
    if rank == 0:
        torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": int(steps)}, path + ".new")
        os.replace(path + ".new", path)  # a process killed while writing leaves the old one whole
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]) or 0)  # gloo's threads outlive DDP: Python may abort as it cleans up beside them
