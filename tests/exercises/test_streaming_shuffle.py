"""`streaming_shuffle`: inside a shard, the same shards, a drained buffer, one order, a lost rest, all in memory."""

import random
from itertools import islice

import pytest
import torch.distributed as dist
from grading import assert_found_out, assert_passes, by_value, solutions

by_value(__name__)
NAME = "streaming_shuffle"
streaming_shuffle = solutions(NAME)[NAME]


def own(shards, seed, epoch):
    order = list(range(shards))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order[dist.get_rank() :: dist.get_world_size()]


def pushed(items, buffer, dice, rest=True):
    held = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = dice.randrange(buffer)
        held[place], item = item, held[place]
        yield item
    dice.shuffle(held)
    yield from held if rest else ()


def inside_a_shard(shards, open_shard, buffer, seed, epoch, start):
    def samples():
        for number in own(shards, seed, epoch):
            items = list(open_shard(number))
            random.Random(f"{seed} {epoch} {number}").shuffle(items)
            yield from items

    yield from islice(samples(), start, None)


def same_shards_everywhere(shards, open_shard, buffer, seed, epoch, start):
    order = random.Random(f"{seed} {epoch}").sample(range(shards), shards)
    items = (sample for number in order for sample in open_shard(number))
    yield from islice(pushed(items, buffer, random.Random(f"{seed} {epoch} {dist.get_rank()}")), start, None)


def drained_at_each_end(shards, open_shard, buffer, seed, epoch, start):
    dice = random.Random(f"{seed} {epoch} {dist.get_rank()}")
    items = (sample for number in own(shards, seed, epoch) for sample in pushed(open_shard(number), buffer, dice))
    yield from islice(items, start, None)


def same_order_each_epoch(shards, open_shard, buffer, seed, epoch, start):
    yield from streaming_shuffle(shards, open_shard, buffer, seed, 0, start)


def rest_is_lost(shards, open_shard, buffer, seed, epoch, start):
    items = (sample for number in own(shards, seed, epoch) for sample in open_shard(number))
    yield from islice(pushed(items, buffer, random.Random(f"{seed} {epoch}"), rest=False), start, None)


def all_in_memory(shards, open_shard, buffer, seed, epoch, start):
    items = [sample for number in own(shards, seed, epoch) for sample in open_shard(number)]
    random.Random(f"{seed} {epoch} {dist.get_rank()}").shuffle(items)
    yield from items[start:]


CHEATS = [  # (answer, the test that sees through it, what it says)
    (same_shards_everywhere, 0, r"at 2 ranks, epoch 0: \d+ of (\d+) samples came more than once.*ranks \[0, 1\]"),
    (rest_is_lost, 0, r"at 1 rank, epoch 0: 12 of \d+ samples never came\n.*still in the buffer"),
    (all_in_memory, 1, r"at 1 rank: rank 0 had read \d+ samples that it had not handed on; its buffer is 12\n"),
    (inside_a_shard, 2, r"rank 0 went 15 times from a sample of one shard .* with 15 borders\D+\n.*where a shard ends"),
    (drained_at_each_end, 2, r"rank 0 went 15 times from a sample of one shard to one of another, in 3 epochs"),
    (same_order_each_epoch, 3, "at 2 ranks: rank 0: epochs 0 and 1 have the same order\n.*The epoch should be in it"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def from_the_start(shards, open_shard, buffer, seed, epoch, start):
    """A restart that begins the epoch again, and shards that come in their order."""
    dice = random.Random(f"{seed} {epoch}")
    numbers = range(dist.get_rank(), shards, dist.get_world_size())
    yield from pushed((sample for number in numbers for sample in open_shard(number)), buffer, dice)


def test_other_mistakes_have_their_message():
    assert_found_out(NAME, from_the_start, 4, r"from sample \d+ of epoch 0 on came \d+ samples, \d+ were left")
    assert_found_out(NAME, from_the_start, 2, "in 3 epochs the shards came in the order of their numbers")


def two_open(shards, open_shard, buffer, seed, epoch, start):
    """Not a cheat: two shards open at once, whose samples take turns, and a buffer behind them."""

    def turns():
        numbers = iter(own(shards, seed, epoch))
        going = [open_shard(number) for number in islice(numbers, 2)]
        while going:
            stream = going.pop(0)
            sample = next(stream, None)
            if sample is not None:
                yield sample
                going.append(stream)
            else:
                going += [open_shard(number) for number in islice(numbers, 1)]

    yield from islice(pushed(turns(), buffer, random.Random(f"{seed} {epoch} {dist.get_rank()}")), start, None)


def test_another_right_answer_passes():
    assert_passes(NAME, two_open)
