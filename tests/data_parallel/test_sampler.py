"""No sample is lost, none is doubled: at any number of ranks, in any epoch, and across a stop."""

from itertools import chain

import pytest
import torch
from torch.utils.data import DataLoader

from parallel_lab import RankFailed, launch
from parallel_lab.data_parallel import ShardedSampler, shard_batch


def all_ranks(size, ranks, epoch=0, **kwargs):
    samplers = [ShardedSampler(size, rank=rank, ranks=ranks, **kwargs) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 10, 11, 12])
def test_every_sample_once_and_shares_that_differ_by_one(size, ranks):
    shares = all_ranks(size, ranks)
    assert sorted(chain(*shares)) == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) == (size % ranks > 0)
    assert [len(ShardedSampler(size, rank=rank, ranks=ranks)) for rank in range(ranks)] == list(map(len, shares))


def test_drop_last_makes_shares_equal():
    shares = all_ranks(11, 4, drop_last=True)
    assert [len(share) for share in shares] == [2, 2, 2, 2]
    assert len(set(chain(*shares))) == 8


def test_epochs_and_seeds_shuffle_and_repeat():
    first, second = all_ranks(50, 2, epoch=0), all_ranks(50, 2, epoch=1)
    assert first != second
    assert first == all_ranks(50, 2, epoch=0)
    assert first != all_ranks(50, 2, epoch=0, seed=1)
    assert all_ranks(5, 2, shuffle=False) == [[0, 2, 4], [1, 3]]


def test_a_step_has_the_same_samples_at_any_number_of_ranks():
    order = all_ranks(24, 1)[0]
    for ranks in (2, 3, 4):
        per_step = list(zip(*all_ranks(24, ranks), strict=True))
        assert [set(step) for step in per_step] == [set(order[i : i + ranks]) for i in range(0, 24, ranks)]


@pytest.mark.parametrize("after", [2, 3, 4])
def test_it_goes_on_where_it_stopped_with_another_number_of_ranks(after):
    before, seen, states = 3, [], []
    for rank in range(before):
        sampler = ShardedSampler(20, rank=rank, ranks=before)
        sampler.set_epoch(5)
        indices = iter(sampler)
        seen += [next(indices) for _ in range(4)]
        states.append(sampler.state_dict())
    assert states[0] == states[1] == states[2]
    rest = []
    for rank in range(after):
        sampler = ShardedSampler(20, rank=rank, ranks=after)
        sampler.load_state_dict(states[0])
        sampler.set_epoch(5)
        rest += list(sampler)
        assert len(list(sampler)) == len(sampler), "the next epoch is a whole one"
    assert sorted(seen + rest) == list(range(20))
    assert len(rest) == 8


def test_a_data_loader_takes_it():
    data = torch.arange(10) * 10
    batches = [DataLoader(data, batch_size=2, sampler=ShardedSampler(10, rank=r, ranks=2)) for r in (0, 1)]
    assert sorted(torch.cat([x for loader in batches for x in loader]).tolist()) == data.tolist()


def test_a_state_of_another_data_set():
    state = ShardedSampler(10, rank=0, ranks=1).state_dict()
    with pytest.raises(ValueError, match="size=10, this one 12"):
        ShardedSampler(12, rank=0, ranks=1).load_state_dict(state)


@pytest.mark.parametrize(("size", "rank", "ranks"), [(-1, 0, 1), (5, 2, 2), (5, -1, 2), (5, 0, 0)])
def test_shares_that_do_not_exist(size, rank, ranks):
    with pytest.raises(ValueError, match="no such share"):
        ShardedSampler(size, rank=rank, ranks=ranks)


def test_half_an_answer():
    with pytest.raises(ValueError, match="give both"):
        ShardedSampler(5, rank=0)


def test_a_rank_that_gets_nothing_is_named_and_may_be_allowed():
    with pytest.raises(ValueError, match=r"rank 2 of 3 gets none of 2 samples: .*join"):
        ShardedSampler(2, rank=2, ranks=3)
    assert list(ShardedSampler(2, rank=2, ranks=3, allow_empty=True)) == []
    assert len(list(ShardedSampler(2, rank=1, ranks=3))) == 1


def test_the_group_gives_rank_and_ranks():
    found = launch(lambda: list(ShardedSampler(7)), ranks=3).results
    assert found == all_ranks(7, 3)


@pytest.mark.parametrize("make", [ShardedSampler, lambda size: shard_batch(torch.zeros(size))])
def test_among_ranks_the_one_without_a_sample_raises(make):
    with pytest.raises(RankFailed, match=r"rank 2 of 3 gets none of 2 samples") as failed:
        launch(make, 2, ranks=3)
    assert failed.value.rank == 2
    assert failed.value.cause == "ValueError"


def shares(size):
    (x, y), weight = shard_batch(torch.arange(size), torch.arange(size) * 2, allow_empty=True)
    return x.tolist(), y.tolist(), weight


def test_a_batch_is_cut_in_order_and_weighted():
    found = launch(shares, 7, ranks=3).results
    assert [x for x, _, _ in found] == [[0, 1, 2], [3, 4], [5, 6]]
    assert all(y == [2 * i for i in x] for x, y, _ in found)
    assert [weight for *_, weight in found] == [9 / 7, 6 / 7, 6 / 7]
    assert launch(shares, 1, ranks=2)[1] == ([], [], 0.0)


def test_tensors_of_different_lengths():
    with pytest.raises(RankFailed, match=r"tensors of \[2, 3\] rows"):
        launch(lambda: shard_batch(torch.zeros(2), torch.zeros(3)), ranks=1)
