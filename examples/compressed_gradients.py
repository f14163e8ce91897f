"""DDP that sends a tenth of each gradient, with error feedback: torchrun --nproc-per-node 2 this_file [share]."""

import os
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SHARE, BATCH, STEPS = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1, 48, 60


def top_k(state, bucket):
    """Sends the largest numbers of each gradient in a full bucket; the others are added to the next gradient."""
    values, places, start = [], [], 0
    for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
        whole = gradient.flatten() + state["left"].get(parameter, 0)
        where = whole.abs().topk(max(1, round(SHARE * whole.numel()))).indices
        state["left"][parameter] = whole.index_fill(0, where, 0)  # per parameter: DDP cuts buckets anew after a step
        values.append(whole[where])
        places.append(where.int() + start)
        start += whole.numel()
    count, total = sum(map(len, values)), torch.zeros_like(bucket.buffer())
    message = torch.cat([torch.cat(values).view(torch.int32), *places])  # one message: the bits of the values first
    everyones = [torch.empty_like(message) for _ in range(dist.get_world_size())]
    work = dist.all_gather(everyones, message, async_op=True)
    state["sent"] += (len(everyones) - 1) * message.nbytes

    def mean(_):  # each rank chose other places, so that an all-reduce of the values would add up what differs
        for each in everyones:
            total.index_add_(0, each[-count:].long(), each[:-count].view(total.dtype), alpha=1 / len(everyones))
        return total

    return work.get_future().then(mean)


rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
device = torch.device("cuda", local) if torch.cuda.device_count() >= n else torch.device("cpu")
dist.init_process_group("gloo" if device.type == "cpu" else "nccl")
images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double().to(device)
model, state = DistributedDataParallel(net), {"left": {}, "sent": 0}
model.register_comm_hook(state, top_k)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(STEPS):
    mine = torch.arange(step * BATCH, (step + 1) * BATCH, device=device).remainder(1728).chunk(n)[rank]
    loss = nn.functional.cross_entropy(model(images[mine] / 16), labels[mine])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    dist.all_reduce(shown := loss.detach() / n)
    print(f"loss {shown.item():.9f}\n" if rank == 0 else "", end="", flush=True)
dense = 2 * (n - 1) / n * 8 * sum(p.numel() for p in net.parameters())
print(f"a step sent {state['sent'] / STEPS:,.0f} bytes, dense {dense:,.0f}\n" if rank == 0 else "", end="", flush=True)
dist.barrier()
os._exit(dist.destroy_process_group() or 0)  # gloo's threads may outlive the group: Python may abort
