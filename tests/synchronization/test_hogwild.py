"""Hogwild: memory is really shared, nothing stays behind, no update is lost from the count, and it converges."""

import os
import signal
import sys
import tempfile

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import RankFailed, launch
from parallel_lab.model import build, digit_batches, train
from parallel_lab.synchronization import Hogwild, hogwild
from parallel_lab.synchronization import train as train_ranks
from parallel_lab.synchronization.hogwild import shared_zeros

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64


def names():
    """The files that could be left: everything in the folder for temporary files, and in shared memory."""
    shm = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    return set(os.listdir(tempfile.gettempdir())), {name for name in shm if "parallel-lab" in name}


def test_a_write_of_one_rank_is_seen_by_the_other_and_memory_is_separate_for_each_call():
    def fn():
        mine = build((4, 3), seed=dist.get_rank())
        hogwild.share_parameters(mine)
        if dist.get_rank() == 0:
            mine[0].weight.data[1, 2] = 7.0
        one, two, none = shared_zeros(5, F64), shared_zeros(3, torch.int64), shared_zeros(0, F64)
        one[dist.get_rank()] = 1.0
        dist.barrier()
        return mine[0].weight.detach().clone(), one.tolist(), two.tolist(), len(none)

    (first, *memory), (second, *_) = launch(fn, ranks=2).results
    assert torch.equal(first, second)
    assert first[1, 2] == 7.0
    assert first[0, 0] == build((4, 3))[0].weight[0, 0], "rank 0's weights are the start"
    assert memory == [[1.0, 1.0, 0.0, 0.0, 0.0], [0, 0, 0], 0]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere the file has a name until all have mapped it"
)
def test_no_file_ever_has_a_name():
    """Looked at while the ranks map the file, the one moment at which it would need a name."""

    def fn(before):
        seen, map_file = [], torch.from_file
        torch.from_file = lambda *arguments, **options: (seen.append(names()), map_file(*arguments, **options))[1]
        hogwild.share_parameters(build((4, 3)))
        return [{name for name in (files | memory) if not name.startswith("parallel-lab-")} for files, memory in seen]

    before = {name for name in names()[0] if not name.startswith("parallel-lab-")}
    for seen in launch(fn, before, ranks=2).results:
        assert len(seen) == 1 and seen[0] <= before


@pytest.mark.parametrize("victim", [0, 1])
def test_nothing_stays_when_a_rank_is_killed(victim):
    before = names()

    def fn():
        mine = build((64, 10))
        hogwild.share_parameters(mine)
        dist.barrier()
        if dist.get_rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    with pytest.raises(RankFailed) as raised:
        launch(fn, ranks=2, timeout=20)
    assert (raised.value.rank, raised.value.cause) == (victim, "killed")
    after = names()
    assert after[0] <= before[0] and after[1] <= before[1]


def test_one_rank_is_plain_sgd():
    batches = list(digit_batches(8, 5))
    oracle = train(build((64, 8, 10), dtype=F64), batches, torch.optim.SGD, lr=0.2, momentum=0.9)
    run = launch(
        lambda: train_ranks(Hogwild(), build((64, 8, 10), dtype=F64), batches, torch.optim.SGD, lr=0.2, momentum=0.9),
        ranks=1,
    )
    for name, tensor in oracle.weights.items():
        torch.testing.assert_close(run[0].weights[name], tensor, rtol=1e-12, atol=1e-12)
    assert run[0].losses == pytest.approx(oracle.losses, rel=1e-12)
    assert run[0].staleness == [0] * 5


def square(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def test_ends_near_the_optimum_of_a_convex_problem_and_counts_every_update():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 6, dtype=F64, generator=generator)
    wanted = torch.randn(6, 1, dtype=F64, generator=generator)
    targets = inputs @ wanted

    def source(rank, ranks):
        rows = torch.randperm(256, generator=torch.Generator().manual_seed(rank)).split(8)
        return [(inputs[some], targets[some]) for _ in range(8) for some in rows]

    def fn():
        line = nn.Linear(6, 1, bias=False, dtype=F64)
        nn.init.zeros_(line.weight)
        return train_ranks(Hogwild(), line, source, torch.optim.SGD, loss=square, lr=0.02)

    run = launch(fn, ranks=3)
    for record in run.results:
        assert torch.equal(record.weights["weight"], run[0].weights["weight"])
        assert len(record.staleness) == len(record.losses) == 256
        assert record.sent_bytes == 0
    # The targets hold no noise, so whatever the order the optimum attracts; a lost addition only delays.
    assert (run[0].weights["weight"].T - wanted).abs().max() < 0.05


def test_nobody_waits_for_a_slow_rank():
    """Between rank 1's reading of the weights and its update, rank 0 makes ten updates, or eleven."""
    images, labels = next(iter(digit_batches(4, 1)))

    def source(rank, ranks):
        if rank == 0:
            dist.recv(torch.zeros(1), 1)  # rank 1 has read the weights
        for step in range(11 if rank == 0 else 1):
            if (rank, step) == (0, 10):
                dist.send(torch.zeros(1), 1)  # ten updates of rank 0 are over
            yield images, labels

    def slow(outputs, targets):
        if dist.get_rank() == 1:
            dist.send(torch.zeros(1), 0)
            dist.recv(torch.zeros(1), 0)
        return nn.functional.cross_entropy(outputs, targets)

    run = launch(
        lambda: train_ranks(Hogwild(), build((64, 10)), source, torch.optim.SGD, steps=11, loss=slow, lr=0.1), ranks=2
    )
    assert [len(record.losses) for record in run.results] == [11, 1]
    assert run[1].staleness[0] in (10, 11)
    assert run[0].staleness[:10] == [0] * 10


def test_a_nan_never_reaches_the_shared_weights():
    batches = list(digit_batches(4, 2))

    def source(rank, ranks):
        if rank == 1:
            return [(torch.full_like(x, float("nan")), y) for x, y in batches]
        return batches

    def fn():
        mine = build((64, 10))
        shared: list[torch.Tensor] = []
        share = hogwild.share_parameters
        hogwild.share_parameters = lambda *arguments, **options: shared.append(share(*arguments, **options))
        try:
            train_ranks(Hogwild(), mine, source, torch.optim.SGD, lr=0.1)
        finally:
            assert torch.isfinite(shared[0]).all()

    with pytest.raises(RankFailed, match=r"rank 1, step 0: the gradient of 0\.weight is NaN or infinite") as raised:
        launch(fn, ranks=2, timeout=20)
    assert raised.value.rank == 1


def test_models_that_cannot_be_shared():
    def mixed():
        parts = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=F64))
        hogwild.share_parameters(parts)

    with pytest.raises(RankFailed, match=r"torch\.float32 on cpu, torch\.float64 on cpu"):
        launch(mixed, ranks=2, timeout=20)

    batches = list(digit_batches(4, 1))

    def different():
        train_ranks(Hogwild(), build((64, 4 + dist.get_rank())), batches, torch.optim.SGD, lr=0.1)

    with pytest.raises(RankFailed, match=r"rank \d does not have the model of rank 0") as raised:
        launch(different, ranks=2, timeout=20)
    assert raised.value.rank == 1
