"""Uneven last batches: which samples count, what the score becomes, and which loop hangs."""

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from parallel_lab import launch
from parallel_lab.runtime import Deadlock
from parallel_lab.systems.evaluation import gather, last_batch
from parallel_lab.systems.evaluation.last_batch import WAYS, in_order, mean_at_end, mean_by_batch, shares, weights

SAMPLES, RANKS, BATCH = 10, 4, 2
RIGHT = torch.tensor([1.0, 1, 1, 1, 1, 0, 1, 1, 1, 1])


def deal(way: str) -> torch.Tensor:
    return RIGHT[shares(SAMPLES, RANKS, way)[dist.get_rank()]]


def test_ten_samples_on_four_ranks_count_twelve_eight_or_ten():
    counted = {way: sum(map(len, shares(SAMPLES, RANKS, way))) for way in WAYS}
    assert counted == {"padded": 12, "dropped": 8, "exact": 10}


@pytest.mark.parametrize("samples", range(14))
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_exact_shares_hold_each_sample_once(samples, ranks):
    dealt = shares(samples, ranks, "exact")
    assert sorted(i for one in dealt for i in one) == list(range(samples))
    if samples:
        padded = shares(samples, ranks, "padded")
        kept = [i for r, one in enumerate(padded) for i, w in zip(one, weights(samples, r, ranks), strict=True) if w]
        assert sorted(kept) == list(range(samples))


def test_weights_fit_a_shuffled_sampler_too():
    kept = []
    for rank in range(RANKS):
        sampler = DistributedSampler(range(SAMPLES), RANKS, rank, shuffle=True, seed=3)
        kept += [i for i, weight in zip(sampler, weights(SAMPLES, rank, RANKS), strict=True) if weight]
    assert sorted(kept) == list(range(SAMPLES))


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="expected one of padded, dropped, exact"):
        shares(4, 2, "rounded")


def score():
    rank = dist.get_rank()
    found = {way: mean_at_end(deal(way)) for way in WAYS}
    found["equal batches"] = mean_by_batch(deal("padded"), BATCH)
    weight = weights(SAMPLES, rank, RANKS)
    sums = torch.stack([(weight * deal("padded")).sum(), weight.sum()])
    dist.all_reduce(sums)
    found["weighted"] = float(sums[0] / sums[1])
    found["in order"] = in_order(gather(deal("padded").double()), SAMPLES, RANKS).tolist()
    found["agreed"] = last_batch.mean_with_batches_agreed(deal("exact"), BATCH)
    found["two hold none"] = mean_at_end(RIGHT if rank < 2 else RIGHT[:0])
    found["agreed, two hold none"] = last_batch.mean_with_batches_agreed(RIGHT if rank < 2 else RIGHT[:0], BATCH)
    try:
        mean_at_end(RIGHT[:0])
    except ValueError as error:
        found["none"] = str(error)
    return found


def test_what_the_score_becomes():
    found = launch(score, ranks=RANKS, device="cpu").results
    assert all(each == found[0] for each in found)
    (found, *_) = found
    assert found["padded"] == found["equal batches"] == pytest.approx(11 / 12)
    assert found["dropped"] == pytest.approx(7 / 8)
    assert found["exact"] == found["agreed"] == found["weighted"] == pytest.approx(0.9)
    assert found["in order"] == RIGHT.tolist()
    assert found["two hold none"] == found["agreed, two hold none"] == pytest.approx(0.9)
    assert "no rank has a value" in found["none"]


def test_an_all_reduce_after_every_batch_hangs_where_batches_differ():
    with pytest.raises(Deadlock, match="all_reduce") as raised:
        launch(lambda: mean_by_batch(deal("exact"), BATCH), ranks=RANKS, device="cpu")
    assert "returned" in raised.value.report
