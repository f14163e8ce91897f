"""The order of samples: each exactly once an epoch at any number of ranks, and over a restart on another number."""

import itertools
from collections import Counter

import pytest
import torch
from torch.utils.data import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from parallel_lab.systems.resilience import Order


def trained(order, position, batch, steps, ranks):
    """What the ranks take in `steps` steps, all of them together, and the position after them."""
    taken = []
    for _ in range(steps):
        taken += [order.take(position, batch, rank=rank, ranks=ranks).tolist() for rank in range(ranks)]
        position += batch
    return list(itertools.chain.from_iterable(taken)), position


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_sample_once_an_epoch(ranks):
    """Batches that fit into the epoch, that do not, smaller than the number of ranks, and larger than the epoch."""
    for samples, batch in ((12, 4), (23, 5), (7, 3), (3, 8), (1, 4)):
        taken, _ = trained(Order(samples, seed=1), 0, batch, 6 * samples, ranks)
        for epoch in range(len(taken) // samples):
            assert Counter(taken[epoch * samples :][:samples]) == Counter(range(samples)), (samples, batch, epoch)
    assert taken


def test_the_sequence_is_the_same_for_any_number_of_ranks():
    expected, _ = trained(Order(23, seed=4), 0, 10, 8, 1)
    for ranks in (2, 3, 4, 7):
        assert trained(Order(23, seed=4), 0, 10, 8, ranks)[0] == expected


def test_a_restart_on_another_number_of_ranks_loses_and_doubles_nothing():
    """In the middle of an epoch, several times; each start makes its order anew."""
    taken, position = [], 0
    for ranks, steps in ((4, 3), (3, 2), (1, 4), (2, 5)):
        more, position = trained(Order(50, seed=2), position, 9, steps, ranks)
        taken += more
    assert taken == trained(Order(50, seed=2), 0, 9, 14, 1)[0] and position == 9 * 14
    assert Counter(taken[:50]) == Counter(taken[50:100]) == Counter(range(50))


def test_epochs_and_seeds_differ():
    order = Order(50)
    assert not torch.equal(order.take(0, 50), order.take(50, 50))
    assert not torch.equal(order.take(0, 50), Order(50, seed=1).take(0, 50))
    assert torch.equal(order.take(0, 50), Order(50).take(0, 50)), "back to an epoch that was left"


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="samples=0"):
        Order(0)
    for wrong in ({"rank": 2, "ranks": 2}, {"rank": -1}, {"position": -1}, {"count": -1}):
        with pytest.raises(ValueError, match="there is no such share"):
            Order(5).take(**{"position": 0, "count": 2} | wrong)


# Peers, and what a restart does to them.


def sampler(ranks, rank, samples=10, epoch=0, **options):
    made = DistributedSampler(range(samples), ranks, rank, seed=1, **options)
    made.set_epoch(epoch)
    return made


def test_torch_pads_or_drops():
    padded = [index for rank in range(4) for index in sampler(4, rank)]
    dropped = [index for rank in range(4) for index in sampler(4, rank, drop_last=True)]
    ours = [index for rank in range(4) for index in Order(10).take(0, 10, rank=rank, ranks=4).tolist()]
    assert len(padded) == 12 and max(Counter(padded).values()) == 2
    assert len(dropped) == 8 and len(set(dropped)) == 8
    assert sorted(ours) == list(range(10))


def test_torch_begins_the_epoch_anew_where_nothing_tells_it_how_far_it_was():
    """Half an epoch was trained on; the restart begins it again, and the run ends after as many samples as planned."""
    before = [index for rank in range(2) for index in list(sampler(2, rank, 40))[:10]]
    after = [index for rank in range(2) for index in list(sampler(2, rank, 40))[:10]]
    seen = Counter(before + after)
    assert set(seen.values()) == {2} and len(seen) == 20, "one half twice, the other not at all"


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_torchdata_resumes_a_rank_and_not_another_number_of_ranks():
    """With as many ranks the rest comes. With another number, the state of a rank has no right place."""

    def loader(ranks, rank):
        return StatefulDataLoader(range(24), batch_size=2, sampler=list(sampler(ranks, rank, 24)))

    def read(made, batches=None):
        return torch.cat(list(itertools.islice(iter(made), batches))).tolist()

    seen, states = [], []
    for rank in range(2):
        made = loader(2, rank)
        rows = iter(made)
        seen += torch.cat([next(rows) for _ in range(3)]).tolist()
        states.append(made.state_dict())
    assert len(set(seen)) == 12
    same, more = [], []
    for rank in range(2):
        made = loader(2, rank)
        made.load_state_dict(states[rank])
        same += read(made)
    for rank in range(3):
        made = loader(3, rank)
        made.load_state_dict(states[rank % 2])
        more += read(made)
    assert sorted(seen + same) == list(range(24)), "the same number of ranks: each once"
    ours = Counter(seen + more)
    assert ours != Counter(range(24)), "three ranks: some twice, or not at all"
    assert max(ours.values()) > 1 or len(ours) < 24
