"""On a GPU: pinned buffers of asynchronous saving, a peer's memory, and the generators of CUDA; and on the CPU."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.runtime import rank_device
from parallel_lab.systems.resilience import AsyncSaver, PeerMemory, asynchronous, forgotten

pytestmark = pytest.mark.usefixtures("by_value")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_saved_behind_and_in_a_peers_memory(device, tmp_path):
    def fn():
        rank, place = dist.get_rank(), rank_device()
        state = {"a": torch.full((1000,), float(rank), device=place), "b": torch.arange(9, device=place)}
        expected = {name: each.cpu().clone() for name, each in state.items()}
        saver, memory = AsyncSaver(tmp_path), PeerMemory()
        memory.save(state, step=1)
        saver.save(state, step=1)
        state["a"].add_(1)
        saver.wait()
        assert all(each.is_pinned() == (place.type == "cuda") for each in saver.buffers.held.values())
        shard, _ = asynchronous.load(tmp_path, rank=rank)
        back, step = (PeerMemory() if rank == 1 else memory).restore([1])
        assert step == 1
        assert all(torch.equal(found[name], expected[name]) for found in (shard, back) for name in expected)

    launch(fn, ranks=2, device=device)


@pytest.mark.gpu
def test_the_generators_of_a_gpu_are_forgotten_as_well():
    found = launch(forgotten.differences, ("nothing", "cuda"), ranks=2, device="cuda")[0]
    assert found == {"nothing": None, "cuda": 0}
