"""Synchronous SGD equals one process, whatever the number of ranks; bad input is named on the rank that caused it."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab import RankFailed, launch
from parallel_lab.model import GPTConfig, build, digit_batches, text_batches, train
from parallel_lab.synchronization import synchronous

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64
WIDTHS = (64, 12, 10)
PARAMETERS = 64 * 12 + 12 + 12 * 10 + 10


def model(seed=0):
    return build(WIDTHS, seed, F64)


def same(weights, oracle, rtol=1e-12, atol=1e-12):
    assert weights.keys() == oracle.keys()
    for name in oracle:
        torch.testing.assert_close(weights[name], oracle[name], rtol=rtol, atol=atol)


OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.AdamW, {"lr": 1e-2}),
]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_equals_one_process_with_uneven_shares(ranks, optimizer, options):
    batches = list(digit_batches(10, 5))  # 10 samples over 3 or 4 ranks are uneven
    oracle = train(model(), batches, optimizer, **options)
    run = launch(lambda: synchronous.train(model(), batches, optimizer, **options), ranks=ranks)
    for record in run.results:
        assert record.losses == pytest.approx(oracle.losses, rel=1e-12)
        # AdamW divides by a root that can be as small as its epsilon, which enlarges the rounding of the sums.
        same(record.weights, oracle.weights, atol=1e-12 if optimizer is torch.optim.SGD else 1e-10)
        assert record.staleness == [0] * 5


def test_tied_and_frozen_parameters():
    config = GPTConfig(seq=6, width=8, heads=2, layers=1)
    batches = list(text_batches(6, 5, 3))

    def frozen():
        gpt = build(config, dtype=F64)
        gpt.head.norm.bias.requires_grad_(False)
        return gpt

    oracle = train(frozen(), batches, torch.optim.SGD, lr=0.2)
    run = launch(lambda: synchronous.train(frozen(), batches, torch.optim.SGD, lr=0.2), ranks=2)
    same(run[1].weights, oracle.weights)


def test_a_batch_too_small_for_all_ranks_and_batches_that_run_out():
    batches = [*digit_batches(7, 2), *digit_batches(2, 1, seed=3)]  # the last has no sample for rank 2
    oracle = train(model(), batches, torch.optim.SGD, lr=0.3)
    run = launch(lambda: synchronous.train(model(), batches, torch.optim.SGD, lr=0.3), ranks=3)
    same(run[2].weights, oracle.weights)
    assert run[0].losses == pytest.approx(oracle.losses, rel=1e-12)

    shares = [list(digit_batches(6, 3, rank, 2)) for rank in range(2)]

    def source(rank, ranks):
        return shares[rank][: 3 - rank]  # rank 1 has two batches, rank 0 three

    run = launch(lambda: synchronous.train(model(), source, torch.optim.SGD, lr=0.3), ranks=2)
    oracle = train(model(), [*digit_batches(6, 2), shares[0][2]], torch.optim.SGD, lr=0.3)
    same(run[0].weights, oracle.weights)
    assert [len(record.losses) for record in run.results] == [3, 3]


@pytest.mark.parametrize("ranks", [2, 3])
def test_bytes_are_those_of_the_formula(ranks):
    batches = list(digit_batches(12, 4))
    run = launch(lambda: synchronous.train(model(), batches, torch.optim.SGD, lr=0.1), ranks=ranks)
    step = 2 * (ranks - 1) * 8 * (PARAMETERS + 1) // ranks
    assert [record.sent_bytes for record in run.results] == [4 * step] * ranks


def test_the_model_is_left_alone_and_ranks_start_from_rank_0():
    batches = list(digit_batches(8, 2))

    def fn():
        mine = model(seed=dist.get_rank())
        before = mine[0].weight.detach().clone()
        record = synchronous.train(mine, batches, torch.optim.SGD, lr=0.1)
        assert torch.equal(mine[0].weight, before)
        return record.weights

    run = launch(fn, ranks=2)
    same(run[1], train(model(0), digit_batches(8, 2), torch.optim.SGD, lr=0.1).weights)


def test_a_sub_group_trains_alone():
    batches = list(digit_batches(6, 2))

    def fn():
        group = dist.new_group([1, 2])
        if dist.get_rank() == 0:
            return None
        return synchronous.train(model(), batches, torch.optim.SGD, group=group, lr=0.1).weights

    same(launch(fn, ranks=3)[2], train(model(), digit_batches(6, 2), torch.optim.SGD, lr=0.1).weights)


def bad(fn, rank, cause, pattern, ranks=3):
    with pytest.raises(RankFailed, match=pattern) as raised:
        launch(fn, ranks=ranks, timeout=20)
    assert (raised.value.rank, raised.value.cause) == (rank, cause)


def test_a_nan_is_named_on_the_rank_that_has_it():
    shares = [list(digit_batches(9, 3, rank, 3)) for rank in range(3)]
    shares[1][2][0][0, 0] = float("nan")

    def fn():
        synchronous.train(model(), lambda rank, ranks: shares[rank], torch.optim.SGD, lr=0.1)

    bad(fn, 1, "ValueError", "rank 1, step 2: the gradient of 0.weight is NaN or infinite")


def test_another_model_is_named_on_the_rank_that_has_it():
    batches = list(digit_batches(9, 1))

    def fn():
        widths = (64, 13, 10) if dist.get_rank() == 2 else WIDTHS
        synchronous.train(build(widths), batches, torch.optim.SGD, lr=0.1)

    bad(fn, 2, "ValueError", r"shape of the parameter '0.weight' is \(13, 64\) here and \(12, 64\) there")


@pytest.mark.parametrize(
    ("batches", "options", "cause", "pattern"),
    [
        (list(digit_batches(9, 1)), {"lr": "0.1"}, "TypeError", "lr='0.1' .str.: expected a number"),
        (list(digit_batches(9, 1)), {"lr": float("nan")}, "ValueError", "lr=nan"),
        (list(digit_batches(9, 1)), {"lr": 0.1, "steps": 0}, "ValueError", "steps=0"),
        (list(digit_batches(9, 1)), {"lr": 0.1, "steps": 1.0}, "TypeError", "steps=1.0"),
        ([], {"lr": 0.1}, "ValueError", "no batches"),
        (lambda rank, ranks: iter([]), {"lr": 0.1}, "TypeError", "give steps="),
    ],
)
def test_bad_arguments(batches, options, cause, pattern):
    def fn():
        synchronous.train(model(), batches, torch.optim.SGD, **options)

    with pytest.raises(RankFailed, match=pattern) as raised:
        launch(fn, ranks=2, timeout=20)
    assert raised.value.cause == cause
