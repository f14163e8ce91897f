"""What the CPU's tests claim of checkpointing, loader and profiles, on the CPU and on a GPU; the pool against torch's.

On a GPU: 1e-9 on gradients in float64. Bytes that autograd keeps are compared in their difference, since kernels of a
GPU keep other small things. Times are read and never compared.
"""

import random

import pytest
import torch

from parallel_lab.model import GPTConfig, build
from parallel_lab.model.gpt import loss
from parallel_lab.performance import Pool, Prefetcher, checkpoint, read_profile
from parallel_lab.performance.checkpointing import kept_bytes
from parallel_lab.performance.memory_pool import MIB
from parallel_lab.trace.memory import SavedTensors

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CONFIG = GPTConfig(seq=32, width=64, heads=4, layers=2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("piece", ["block", "feed_forward"])
def test_checkpointing_on_a_device(device, piece):
    tokens = torch.randint(256, (2, 32), generator=torch.Generator().manual_seed(0)).to(device)
    targets, found, kept = tokens.roll(1), [], []
    for which in ("none", piece):
        model = checkpoint(build(CONFIG, dtype=torch.float64).to(device), which)
        with SavedTensors(model) as saved:
            value = loss(model(tokens), targets)
            kept.append(saved.bytes)
        value.backward()
        found.append([p.grad for p in model.parameters()])
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(*found, strict=True))
    predicted = kept_bytes(CONFIG, 2, "none", dtype_bytes=8) - kept_bytes(CONFIG, 2, piece, dtype_bytes=8)
    assert kept[0] - kept[1] == pytest.approx(predicted, rel=0.05 if device == "cuda" else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_falls_the_same_way_twice_on_a_device(device):
    config = GPTConfig(seq=32, width=64, heads=4, layers=2, dropout=0.3)
    tokens = torch.randint(256, (2, 32), generator=torch.Generator().manual_seed(0)).to(device)
    found = []
    for piece in ("none", "block"):
        model = checkpoint(build(config).to(device), piece)
        torch.manual_seed(3)
        loss(model(tokens), tokens).backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_batches_arrive_on_the_device_as_they_were(device):
    items = [(torch.full((1000,), float(k)), torch.tensor([k])) for k in range(20)]
    for k, (x, y) in enumerate(Prefetcher(range(20), items.__getitem__, ahead=3, threads=2, device=device)):
        assert x.device.type == y.device.type == device
        assert (x * 2).sum().item() == 2000 * k and y.item() == k


@pytest.mark.parametrize("device", DEVICES)
def test_a_profile_of_the_device(device, tmp_path):
    """On a GPU many tiny kernels show launch overhead or none, depending on the machine; the parts sum to the step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * (device == "cuda")
    x = torch.ones(64, device=device)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(50):
            x = x * 1.0
        if device == "cuda":
            torch.cuda.synchronize()
    path = tmp_path / "profile.json"
    profiler.export_chrome_trace(str(path))
    (row,) = read_profile(path).rows
    assert sum(row.ns.values()) == row.step_ns and row.ns["compute"] > 0


@pytest.mark.gpu
def test_the_pool_reserves_what_torch_s_allocator_reserves():
    """The same requests and frees; blocks of one stream, none larger than what the device has."""
    torch.cuda.empty_cache()
    base, chance, pool = torch.cuda.memory_reserved(), random.Random(0), Pool(8 * 1024 * MIB)
    if base:
        pytest.skip(f"{base} bytes are reserved by earlier tests")
    held = []
    for _ in range(200):
        if held and chance.random() < 0.45:
            tensor, block = held.pop(chance.randrange(len(held)))
            del tensor
            pool.free(block)
        else:
            size = int(2 ** chance.uniform(9, 25))
            held.append((torch.empty(size, dtype=torch.uint8, device="cuda"), pool.allocate(size)))
        assert torch.cuda.memory_reserved() == pool.reserved_bytes
