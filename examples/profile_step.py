"""Where the time of a DDP step goes: torchrun --nproc-per-node 2 examples/profile_step.py /tmp/trace."""

import os
import sys
from itertools import pairwise

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.autograd import DeviceType
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

WARM_UP, STEPS = 3, 5  # the first steps make buffers, tune kernels and connect: they are not what a step costs


def main(path):
    rank, n, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    images, labels = (torch.tensor(array).to(device) for array in load_digits(return_X_y=True))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    model = DistributedDataParallel(net.double().to(device))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    for step, rows in enumerate(torch.arange((WARM_UP + STEPS) * 192).split(192)):
        if step == WARM_UP:
            profiler = profile(activities=activities)
            profiler.start()
        with record_function("step"):
            mine = rows.tensor_split(n)[rank]  # equal shares, for 1, 2, 3, 4 and 6 ranks
            loss = nn.functional.cross_entropy(model(images[mine] / 16), labels[mine])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            dist.all_reduce(loss.detach_().div_(n))
            print(f"step {step} loss {loss.item():.9f}\n" * (rank == 0), end="")  # item() waits for the GPU
    profiler.stop()
    profiler.export_chrome_trace(f"{path}.{rank}.json.gz")
    events = [(e, (e.time_range.start, e.time_range.end)) for e in profiler.events()]
    there = [(e, when) for e, when in events if e.device_type == (DeviceType.CUDA if gpu else DeviceType.CPU)]
    steps = [when for e, when in events if e.name == "step" and e.device_type == DeviceType.CPU]
    sent = [when for e, when in there if e.name.startswith(("gloo:", "nccl")) and gpu != e.is_user_annotation]
    ran = [when for e, when in there if not e.is_user_annotation and when not in sent and (gpu or "aten::" in e.name)]
    parts = {"computed": 0.0, "hidden": 0.0, "exposed": 0.0, "idle": 0.0}  # a moment is one of these
    for start, end in pairwise(sorted({edge for when in [*steps, *sent, *ran] for edge in when})):
        in_step, busy, sends = (any(a <= start and end <= b for a, b in each) for each in (steps, ran, sent))
        name = ("hidden" if sends else "computed") if busy else "exposed" if sends else "idle"
        parts[name] += in_step * (end - start) / 1e3
    shares = ", ".join(f"{name} {ms / sum(parts.values()):.1%}" for name, ms in parts.items())
    print(f"rank {rank}: a step {sum(parts.values()) / STEPS:.3f} ms: {shares}\n", end="", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]) or 0)  # gloo's threads outlive DDP: Python may abort as it cleans up beside them
