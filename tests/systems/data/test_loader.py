"""Every sample once an epoch over changes of world and workers; shuffles and their quality; peers beside them."""

import io
import random
import tarfile
from collections import Counter
from itertools import chain

import pytest
import torch
import torch.distributed as dist
import webdataset
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from parallel_lab import launch
from parallel_lab.model.digits import digit_images
from parallel_lab.systems.data import IndexedLoader, StreamLoader, shuffle

pytestmark = pytest.mark.usefixtures("by_value")
SIZES = [7, 5, 9, 3, 8, 6, 4, 10, 7, 7, 5, 6, 3, 11]
TOTAL = sum(SIZES)


def read(shard):
    return [(shard, place) for place in range(SIZES[shard])]


ALL = [sample for shard in range(len(SIZES)) for sample in read(shard)]


def stream(rank=0, ranks=1, **options):
    return StreamLoader(SIZES, read, rank=rank, ranks=ranks, **{"buffer": 4, "seed": 3, **options})


def legs(worlds, steps):
    """One epoch in several legs, each on another number of ranks, each going on from the place the one before saved."""
    rank, got, state = dist.get_rank(), [], None
    groups = [dist.new_group(list(range(world))) for world in worlds]
    for world, count, group in zip(worlds, steps, groups, strict=True):
        if rank < world:
            loader = stream(rank, world)
            loader.load_state_dict(state or loader.state_dict(group))
            for number, sample in enumerate(loader):
                if number == count:
                    break  # this one was read and not trained on
                loader.taken(sample)
                got.append(sample.value)
            state = loader.state_dict(group)
        states = [state]
        dist.broadcast_object_list(states, src=0)
        state = states[0]
    return got, state


def test_every_sample_once_over_changes_of_the_world():
    run = launch(legs, (4, 1, 3, 2), (4, 9, 6, 10**6), ranks=4)
    got = list(chain.from_iterable(samples for samples, _ in run.results))
    assert sorted(got) == ALL
    assert all(state == run[0][1] for _, state in run.results)
    assert sum(run[0][1]["delivered"]) == TOTAL


def test_the_streams_are_the_same_whoever_drives_them():
    alone = list(stream())
    for ranks in (2, 3, 4, 5):
        together = [sample for rank in range(ranks) for sample in stream(rank, ranks)]
        for number in range(12):
            assert [s for s in alone if s.stream == number] == [s for s in together if s.stream == number]


def test_counting_what_was_read_instead_of_what_was_taken_would_lose_samples():
    loader, place = stream(), Counter()
    for number, sample in enumerate(loader):
        place[sample.stream] += 1
        if number < 20:
            loader.taken(sample)  # ten more were read ahead
        elif number == 29:
            break
    right, wrong = stream(), stream()
    right.load_state_dict(loader.state_dict())
    wrong.load_state_dict({"epoch": 0, "delivered": [place[number] for number in range(12)]})
    assert len(list(right)) == TOTAL - 20
    assert len(list(wrong)) == TOTAL - 30


def test_a_shard_is_read_once_and_few_samples_are_held():
    loaders = [stream(rank, 3, streams=3) for rank in range(3)]
    for loader in loaders:
        list(loader)
        assert loader.most_held <= loader.buffer + max(SIZES)
    assert sum(loader.reads for loader in loaders) == len(SIZES)
    late = stream(0, 3, streams=3)
    late.load_state_dict({"epoch": 0, "delivered": [sum(SIZES[shard] for shard in late.shards_of(0)) - 1, 0, 0]})
    assert len(list(late)) == 1
    assert late.reads == 1  # only the shard that still has a sample


def test_epochs_differ_and_a_place_knows_its_epoch():
    loader = stream()
    first = [sample.value for sample in loader]
    loader.next_epoch()
    second = [sample.value for sample in loader]
    assert sorted(first) == sorted(second) == ALL
    assert first != second
    again = stream()
    again.load_state_dict(loader.state_dict())
    assert [sample.value for sample in again] == second


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_divide_the_streams_of_a_rank_and_may_change_in_number():
    got, state = [], None
    for workers, count in ((2, 30), (3, 10**6)):
        loader = stream()
        loader.load_state_dict(state or loader.state_dict())
        for number, sample in enumerate(DataLoader(loader, batch_size=None, num_workers=workers, prefetch_factor=4)):
            if number == count:
                break
            loader.taken(sample)
            got.append(tuple(sample.value))
        state = loader.state_dict()
    assert sorted(got) == ALL


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="13 ranks, 12 streams"):
        stream(0, 13)
    with pytest.raises(ValueError, match="15 streams, 14 shards"):
        stream(streams=15)
    with pytest.raises(ValueError, match="12 streams, this loader 6"):
        stream(streams=6).load_state_dict(stream().state_dict())
    with pytest.raises(ValueError, match="a buffer of 0"):
        list(shuffle.buffered([1], 0, random.Random(0)))


def test_random_access_goes_on_at_another_world():
    samples, got, place = list(range(30)), [], {"position": 0}
    for ranks, steps in ((2, 2), (3, 1), (1, 3)):
        loaders = [IndexedLoader(samples, 5, rank=rank, ranks=ranks) for rank in range(ranks)]
        for loader in loaders:
            loader.load_state_dict(place)
        for _ in range(steps):
            got += [sample for loader in loaders for sample in next(iter(loader))]
        place = loaders[0].state_dict()
    assert sorted(got) == samples


class Plain(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return index


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated", "ignore:This DataLoader will create")
def test_torchdata_resumes_on_the_same_number_of_workers_as_ours_does():
    """The peer keeps a place as well; its place belongs to the number of workers that saved it, and ours does not."""

    def loader(workers):
        return StatefulDataLoader(Plain(), batch_size=2, num_workers=workers)

    first, got = loader(2), []
    for number, batch in enumerate(first):
        got += batch.tolist()
        if number == 4:
            state = first.state_dict()
            break
    again = loader(2)
    again.load_state_dict(state)
    got += [index for batch in again for index in batch.tolist()]
    assert sorted(got) == list(range(24))
    other = loader(3)
    other.load_state_dict(state)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        list(other)


# The peer leaves the archives that it read to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file", "ignore:Exception ignored in")
def test_webdataset_reads_the_same_samples_from_the_same_shards(tmp_path):
    for shard, size in enumerate(SIZES):
        with tarfile.open(tmp_path / f"{shard:03}.tar", "w") as archive:
            for place in range(size):
                info = tarfile.TarInfo(f"{shard:03}-{place:03}.txt")
                info.size = 7
                archive.addfile(info, io.BytesIO(f"{shard:03} {place:03}".encode()))

    def of_tar(shard):
        with tarfile.open(tmp_path / f"{shard:03}.tar") as archive:
            return [archive.extractfile(member).read() for member in archive]

    urls = str(tmp_path / f"{{000..{len(SIZES) - 1:03}}}.tar")
    theirs = [sample["txt"] for sample in webdataset.WebDataset(urls, shardshuffle=5, seed=1).shuffle(4)]
    ours = [sample.value for sample in StreamLoader(SIZES, of_tar, buffer=4)]
    assert sorted(theirs) == sorted(ours) == sorted(f"{shard:03} {place:03}".encode() for shard, place in ALL)


WAYS = {
    "in shards": lambda sizes, seed, epoch: shuffle.in_shards(sizes, seed, epoch),
    "a buffer": lambda sizes, seed, epoch: shuffle.streamed(sizes, 64, seed, epoch, shuffled_shards=False),
    "shards and a buffer": lambda sizes, seed, epoch: shuffle.streamed(sizes, 64, seed, epoch),
    "all": lambda sizes, seed, epoch: shuffle.permuted(sizes, seed, epoch),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_order_is_a_permutation_of_its_own_each_epoch_and_again_the_same(way):
    orders = [WAYS[way](SIZES, 5, epoch) for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(TOTAL))
    assert orders[0] == orders[2] != orders[1]


def test_a_buffer_holds_what_it_may_and_moves_nothing_far_ahead():
    taken = 0

    def items():
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for place, item in enumerate(shuffle.buffered(items(), 32, random.Random(0))):
        assert taken - place <= 33
        assert item - place <= 31
    assert list(shuffle.buffered(range(5), 100, random.Random(0))) != list(range(5))
    assert list(shuffle.buffered(range(5), 1, random.Random(0))) == list(range(5))


def test_a_stay_in_the_buffer_is_geometric():
    buffer, stays = 8, []
    for seed in range(300):
        order = list(shuffle.buffered(range(200), buffer, random.Random(seed)))
        stays.append(order.index(100) - (100 - buffer))
    over = [stay > buffer for stay in stays if stay >= 1]
    chance = (1 - 1 / buffer) ** buffer
    assert abs(sum(over) / len(stays) - chance) < 4 * (chance * (1 - chance) / len(stays)) ** 0.5


def digits_by_label():
    images, labels = digit_images("train")
    order = labels.argsort(stable=True)
    return images[order], labels[order]


def test_quality_tells_the_ways_apart_and_a_full_permutation_has_its_expectation():
    labels = digits_by_label()[1].tolist()
    sizes, found = [60] * 23 + [len(labels) - 23 * 60], {}
    for way, order in WAYS.items():
        found[way] = shuffle.quality(order(sizes, 0, 0), labels, 32)
    assert found["in shards"].correlation > 0.99
    assert found["a buffer"].correlation > 0.9
    assert abs(found["shards and a buffer"].correlation) < 0.3  # looks random, and is not:
    assert found["shards and a buffer"].together > 4 * found["shards and a buffer"].together_at_random
    assert found["in shards"].labels < found["a buffer"].labels < found["shards and a buffer"].labels
    full = [shuffle.quality(shuffle.permuted(sizes, seed), labels, 32) for seed in range(20)]
    assert sum(one.labels for one in full) / 20 == pytest.approx(full[0].labels_at_random, rel=0.01)
    assert sum(one.together for one in full) / 20 == pytest.approx(full[0].together_at_random, rel=0.2)
    assert shuffle.labels_at_random([0, 0, 1], 2) == pytest.approx(1 + 2 / 3)


def test_sorted_data_cost_training_what_the_shuffle_leaves_of_their_order():
    """Three seeds each; the worst of the better way is better than the best of the worse one."""
    data, test = digits_by_label(), digit_images("test")
    sizes, losses = [60] * 23 + [len(data[0]) - 23 * 60], {}
    for way, order in WAYS.items():
        losses[way] = [shuffle.sorted_loss(data, test, order(sizes, seed, 0), seed=seed) for seed in range(3)]
    assert max(losses["all"]) < min(losses["shards and a buffer"])
    assert max(losses["shards and a buffer"]) < min(losses["in shards"])
