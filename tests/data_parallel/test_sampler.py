"""No sample is lost, none is doubled: at any number of ranks, in any epoch, and across a stop."""

import gc
import multiprocessing
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


SHAPES = {
    "by hand": None,
    "one process": {},
    "workers": {"num_workers": 2},
    "persistent workers": {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3},
    "one at a time": {"batch_size": None},
    "a remainder dropped": {"num_workers": 1, "drop_last": True},
}


@pytest.mark.parametrize("how", SHAPES)
@pytest.mark.parametrize("stop", [0, 2, 100])
def test_the_state_counts_what_was_handed_on(how, stop):
    """A loader with workers draws ahead. Stopped in an epoch, during a step or after the loop, nothing is lost."""
    size = 22
    for ranks in (1, 2):
        seen, states = [], []
        for rank in range(ranks):
            sampler = ShardedSampler(size, rank=rank, ranks=ranks)
            loader = sampler
            if SHAPES[how] is not None:
                loader = DataLoader(torch.arange(size), sampler=sampler, **{"batch_size": 4} | SHAPES[how])
                _ = list(loader) if how == "persistent workers" else None
                sampler.set_epoch(1)
            during = sampler.state_dict()
            for number, batch in enumerate(loader, 1) if stop else ():
                seen += torch.as_tensor(batch).reshape(-1).tolist()
                during = sampler.state_dict()
                if number == stop:
                    break
            states.append(sampler.state_dict())
            if stop < 100:
                assert states[-1] == during, "the same after the loop"
        assert all(state == states[0] for state in states)
        rest = []
        for rank in range(ranks):
            again = ShardedSampler(size, rank=rank, ranks=ranks)
            again.load_state_dict(states[0])
            rest += list(again)
        over = how == "a remainder dropped" and stop >= len(sampler) // 4
        dropped = ranks * (len(sampler) % 4) if over else 0
        assert len(seen) + len(rest) == size - dropped
        assert len(set(seen + rest)) == size - dropped


def test_the_workers_end_with_the_loop():
    """The sampler holds on to nothing that keeps the loader's iterator alive, also without the garbage collector."""
    gc.disable()
    try:
        for _ in DataLoader(torch.arange(8), sampler=ShardedSampler(8, rank=0, ranks=1), num_workers=1):
            break
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


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


@pytest.mark.parametrize("make", [ShardedSampler, lambda size: shard_batch(torch.zeros(size))])
def test_among_ranks_the_one_without_a_sample_raises(make):
    with pytest.raises(RankFailed, match=r"rank 2 of 3 gets none of 2 samples") as failed:
        launch(make, 2, ranks=3)
    assert failed.value.rank == 2
    assert failed.value.cause == "ValueError"


def shares():
    found = []
    for size in (7, 1):
        (x, y), weight = shard_batch(torch.arange(size), torch.arange(size) * 2, allow_empty=True)
        found.append((x.tolist(), y.tolist(), weight))
    with pytest.raises(ValueError, match=r"tensors of \[2, 3\] rows"):
        shard_batch(torch.zeros(2), torch.zeros(3))
    return *found, list(ShardedSampler(7))


def test_a_batch_is_cut_in_order_and_weighted_and_the_group_gives_rank_and_ranks():
    found = launch(shares, ranks=3).results
    assert [x for (x, _, _), _, _ in found] == [[0, 1, 2], [3, 4], [5, 6]]
    assert all(y == [2 * i for i in x] for (x, y, _), _, _ in found)
    assert [weight for (*_, weight), _, _ in found] == [9 / 7, 6 / 7, 6 / 7]
    assert [one for _, one, _ in found] == [([0], [0], 3.0), ([], [], 0.0), ([], [], 0.0)]
    assert [indices for *_, indices in found] == all_ranks(7, 3)
