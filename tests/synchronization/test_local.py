"""Local SGD and DiLoCo: equality with one-process computations of them, bytes, uneven rounds, bad input."""

import sys
from copy import deepcopy

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab import RankFailed, launch
from parallel_lab.model import build, digit_batches, loss, shard_sizes, train
from parallel_lab.synchronization import DiLoCo, LocalSGD, diloco, local_sgd, synchronous

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64
WIDTHS = (64, 8, 10)
PARAMETERS = 64 * 8 + 8 + 8 * 10 + 10
BATCHES = list(digit_batches(10, 7))


def model(seed=0):
    return build(WIDTHS, seed, F64)


def same(weights, oracle, tolerance=1e-12):
    assert weights.keys() == oracle.keys()
    for name in oracle:
        torch.testing.assert_close(weights[name], oracle[name], rtol=tolerance, atol=tolerance)


def share(batch, rank, ranks):
    """Rank's part of a global batch, cut here on its own account: sizes that differ by one, larger ones first."""
    sizes = shard_sizes(len(batch[0]), ranks)
    start = sum(sizes[:rank])
    return batch[0][start : start + sizes[rank]].to(F64), batch[1][start : start + sizes[rank]]


def one_process(ranks, every, inner, outer=None):
    """All ranks' models in one process; `outer` makes the optimizer of the shared weights from the outer gradient."""
    shared = model()
    copies = [deepcopy(shared) for _ in range(ranks)]
    optimizers = [inner(copy.parameters()) for copy in copies]
    outer_optimizer = outer(shared.parameters()) if outer else None
    seen = [0] * ranks
    for step, batch in enumerate(BATCHES, start=1):
        for rank in range(ranks):
            x, y = share(batch, rank, ranks)
            optimizers[rank].zero_grad()
            loss(copies[rank](x), y).backward()
            optimizers[rank].step()
            seen[rank] += len(x)
        if step % every and step < len(BATCHES):
            continue
        with torch.no_grad():
            for index, parameter in enumerate(shared.parameters()):
                mine = [list(copy.parameters())[index] for copy in copies]
                mean = sum(p * n for p, n in zip(mine, seen, strict=True)) / sum(seen)
                if outer_optimizer:
                    parameter.grad = parameter - mean
                else:
                    parameter.copy_(mean)
            if outer_optimizer:
                outer_optimizer.step()
            for copy in copies:
                copy.load_state_dict(shared.state_dict())
        seen = [0] * ranks
    return shared.state_dict()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_meeting_at_every_step_is_synchronous_sgd(ranks):
    oracle = train(model(), BATCHES, torch.optim.SGD, lr=0.3)
    run = launch(lambda: local_sgd.train(model(), BATCHES, torch.optim.SGD, every=1, lr=0.3), ranks=ranks)
    for record in run.results:
        same(record.weights, oracle.weights)


@pytest.mark.parametrize("every", [3, 7, 50])
def test_local_sgd_equals_all_ranks_in_one_process(every):
    """7 steps: 3, 3 and 1; one round; a round that is never full. Momentum stays each rank's own."""
    options = {"lr": 0.1, "momentum": 0.9}
    oracle = one_process(3, every, lambda parameters: torch.optim.SGD(parameters, **options))
    run = launch(lambda: local_sgd.train(model(), BATCHES, torch.optim.SGD, every=every, **options), ranks=3)
    for record in run.results:
        same(record.weights, oracle)
    plain = train(model(), BATCHES, torch.optim.SGD, **options).weights
    assert max((plain[name] - oracle[name]).abs().max() for name in plain) > 1e-6


@pytest.mark.parametrize("every", [2, 3])
def test_diloco_equals_nesterov_of_torch_on_the_outer_gradient(every):
    oracle = one_process(
        3,
        every,
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        lambda parameters: torch.optim.SGD(parameters, lr=0.7, momentum=0.9, nesterov=True),
    )
    run = launch(lambda: diloco.train(model(), BATCHES, torch.optim.AdamW, every=every, lr=1e-2), ranks=3)
    for record in run.results:
        # AdamW divides by a root that can be as small as its epsilon, which enlarges the rounding of the sums.
        same(record.weights, oracle, 1e-10)


def test_diloco_with_a_full_step_and_no_momentum_is_local_sgd():
    def fn():
        plain = {"outer_lr": 1.0, "outer_momentum": 0.0}
        outer = diloco.train(model(), BATCHES, torch.optim.SGD, every=3, **plain, lr=0.2)
        return outer, local_sgd.train(model(), BATCHES, torch.optim.SGD, every=3, lr=0.2)

    outer, local = launch(fn, ranks=2)[1]
    same(outer.weights, local.weights)


@pytest.mark.parametrize(("every", "meetings"), [(1, 8), (2, 4), (4, 2), (3, 3), (8, 1)])
def test_bytes_fall_as_one_over_h(every, meetings):
    batches = list(digit_batches(8, 8))

    def fn():
        optimizer = {"optimizer_class": torch.optim.SGD, "lr": 0.1}
        return local_sgd.train(model(), batches, every=every, **optimizer), diloco.train(
            model(), batches, every=every, **optimizer
        )

    run = launch(fn, ranks=2)
    for record in run[0]:
        assert record.sent_bytes == meetings * 8 * (PARAMETERS + 1)
    # The trace: two handshakes with broadcasts before each training, and the meetings of both.
    size = 8 * (PARAMETERS + 1)
    assert [s.bytes for s in run.trace.of(1) if s.kind == "all_reduce"].count(size) == 2 * meetings


def test_one_h_th_of_synchronous_bytes():
    batches = list(digit_batches(8, 6))

    def fn():
        every_step = synchronous.train(model(), batches, torch.optim.SGD, lr=0.1)
        return every_step.sent_bytes, local_sgd.train(model(), batches, torch.optim.SGD, every=3, lr=0.1).sent_bytes

    each, third = launch(fn, ranks=3)[0]
    assert each == 3 * third > 0


def test_a_rank_without_batches_takes_the_mean_of_the_others():
    def source(rank, ranks):
        return [(x[:4], y[:4]) for x, y in BATCHES[: 4 - 3 * rank]]  # rank 0: 4 batches, rank 1: 1

    run = launch(lambda: local_sgd.train(model(), source, torch.optim.SGD, every=2, lr=0.1), ranks=2)
    same(run[0].weights, run[1].weights, 0.0)
    assert [len(record.losses) for record in run.results] == [4, 1]


def test_the_class_says_when_ranks_met_and_starts_from_rank_0():
    shares = [list(digit_batches(6, 5, rank, 2)) for rank in range(2)]

    def fn():
        mine = build(WIDTHS, dist.get_rank())
        meeting = LocalSGD(mine, torch.optim.SGD(mine.parameters(), lr=0.1), every=2)
        start = mine[0].weight.detach().clone()
        met = []
        for images, labels in shares[dist.get_rank()]:
            mine.zero_grad()
            loss(mine(images), labels).backward()
            met.append(meeting.step(len(images)))
        drifted = mine[0].weight.detach().clone()
        meeting.finish()
        return met, start, drifted, mine[0].weight.detach().clone()

    (met, start, drifted, end), (met1, start1, drifted1, end1) = launch(fn, ranks=2).results
    assert met == met1 == [False, True, False, True, False]
    assert torch.equal(start, start1) and torch.equal(end, end1) and not torch.equal(drifted, drifted1)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("kind", [LocalSGD, DiLoCo])
def test_every_must_be_a_whole_number(kind, every):
    mine = model()
    with pytest.raises((TypeError, ValueError), match="every="):
        kind(mine, torch.optim.SGD(mine.parameters(), lr=0.1), every=every)


@pytest.mark.parametrize("options", [{"outer_lr": "1"}, {"outer_momentum": 1.0}, {"outer_lr": -0.1}])
def test_bad_outer_settings(options):
    mine = model()
    with pytest.raises((TypeError, ValueError), match="outer_"):
        DiLoCo(mine, torch.optim.SGD(mine.parameters(), lr=0.1), every=2, **options)


def test_a_nan_reaches_no_weights():
    def fn():
        mine = model()
        meeting = DiLoCo(mine, torch.optim.SGD(mine.parameters(), lr=0.1), every=1)
        for parameter in mine.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if dist.get_rank() == 1 else 1.0)
        try:
            meeting.step()
        finally:
            assert all(torch.isfinite(p).all() for p in mine.parameters())

    with pytest.raises(RankFailed, match=r"rank 1, step 0: the gradient of 0\.weight is NaN or infinite") as raised:
        launch(fn, ranks=2, timeout=20)
    assert raised.value.rank == 1
