"""The same on the CPU and on a GPU that the ranks share: collectives, messages, training, faults, the link."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Deadlock, Link, RankFailed, collectives, launch, model
from parallel_lab.runtime import rank_device, ring_cost
from parallel_lab.runtime.rank.emulate import ROUNDING_S

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_collectives_and_messages(device, ranks):
    def fn():
        rank, n = dist.get_rank(), dist.get_world_size()
        mine = torch.arange(6.0, device=rank_device()) + rank
        assert mine.device.type == device
        gathered = [torch.empty_like(mine) for _ in range(n)]
        dist.all_gather(gathered, mine)
        scattered = torch.empty_like(mine)
        dist.reduce_scatter(scattered, [mine + i for i in range(n)])
        shifted = torch.empty_like(mine)
        sends = [
            dist.P2POp(dist.isend, mine, (rank + 1) % n),
            dist.P2POp(dist.irecv, shifted, (rank - 1) % n),
        ]
        for work in dist.batch_isend_irecv(sends):
            work.wait()
        ring = collectives.all_reduce(mine.clone(), algorithm="ring")
        dist.all_reduce(mine)
        return [t.cpu() for t in (*gathered, scattered, shifted, mine, ring)]

    base, total = torch.arange(6.0), ranks * (ranks - 1) / 2
    for rank, (*gathered, scattered, shifted, mine, ring) in enumerate(launch(fn, ranks=ranks, device=device).results):
        assert all(torch.equal(held, base + other) for other, held in enumerate(gathered))
        assert torch.equal(scattered, ranks * (base + rank) + total)
        assert torch.equal(shifted, base + (rank - 1) % ranks)
        assert torch.equal(mine, ranks * base + total)
        assert torch.equal(ring, mine)


def test_a_receive_from_any_source(device):
    def fn():
        mine = torch.full((3,), float(dist.get_rank()), device=rank_device())
        if dist.get_rank():
            return dist.send(mine, dst=0)
        came = [torch.empty_like(mine) for _ in range(2)]
        sources = [dist.recv(tensor) for tensor in came]
        return sources, [tensor.tolist() for tensor in came]

    sources, came = launch(fn, ranks=3, device=device)[0]
    assert sorted(sources) == [1, 2] and came == [[float(source)] * 3 for source in sources]


def test_one_rank(device):
    """It sends nothing, but has a group all the same: barriers, collectives and objects work."""

    def fn():
        mine = torch.ones(3, device=rank_device())
        dist.all_reduce(mine)
        dist.barrier()
        box = [None]
        dist.all_gather_object(box, dist.get_rank())
        return mine.device.type, mine.tolist(), box

    assert launch(fn, ranks=1, device=device)[0] == (device, [1.0] * 3, [0])


def test_training_agrees_with_one_process(device):
    config = model.GPTConfig(seq=16, layers=1, width=32)

    def train():
        gpt = model.build(config, dtype=torch.float64).to(rank_device())
        optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-3)
        losses = []
        for tokens, targets in model.text_batches(16, 8, 3, dist.get_rank(), dist.get_world_size()):
            optimizer.zero_grad()
            loss = model.loss(gpt(tokens.to(rank_device())), targets.to(rank_device()))
            loss.backward()
            for p in gpt.parameters():
                dist.all_reduce(p.grad.div_(dist.get_world_size()))
            optimizer.step()
            losses.append(loss.item())
        return losses

    results = launch(train, ranks=4, device=device).results
    gpt = model.build(config, dtype=torch.float64)
    alone = model.train(gpt, model.text_batches(16, 8, 3), torch.optim.AdamW, lr=1e-3)
    together = [sum(step) / 4 for step in zip(*results, strict=True)]
    assert together == pytest.approx(alone.losses, abs=1e-9)  # float64; only the order of additions differs


def test_failures_are_reported(device):
    def raises():
        x = torch.ones(4, device=rank_device())
        if dist.get_rank() == 1:
            raise ValueError("broken")
        dist.all_reduce(x)

    def skips():
        x = torch.ones(4, device=rank_device())
        if dist.get_rank() != 1:
            dist.all_reduce(x)

    with pytest.raises(RankFailed, match=r"rank 1 failed"):
        launch(raises, ranks=3, device=device)
    with pytest.raises(Deadlock, match="rank 1 returned; ranks 0 and 2 wait for it in all_reduce"):
        launch(skips, ranks=3, device=device, timeout=20)
    assert launch(dist.get_rank, ranks=2, device=device).results == [0, 1]


def test_the_link_holds_tensors_back(device):
    link, size = Link(1e-3, 50e6), 1_000_000

    def fn():
        x = torch.ones(size // 4, device=rank_device())
        dist.all_reduce(x)
        dist.send(x, dst=1) if dist.get_rank() == 0 else dist.recv(x, src=0)

    spans = launch(fn, ranks=2, link=link, device=device).trace.of(0)
    took = {s.kind: s.end_s - s.start_s for s in spans}
    assert took["all_reduce"] >= ring_cost("all_reduce", 2, size).seconds(link) - ROUNDING_S
    assert took["send"] >= link.seconds(size) - ROUNDING_S


@pytest.mark.gpu
def test_results_arrive_on_the_cpu():
    assert launch(lambda: torch.ones(2, device=rank_device()), ranks=1, device="cuda")[0].device.type == "cpu"
