"""A checkpoint in a peer's memory. A loss is a memory that is dropped: the process goes on as the replacement."""

from itertools import combinations

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.resilience import placement
from parallel_lab.systems.resilience.peer import PeerMemory

pytestmark = pytest.mark.usefixtures("by_value")


def shard(rank, step):
    """Uneven shards, a dtype whose elements would stand askew among bytes, and a number."""
    values = torch.arange(50.0 + 7 * rank) + 100 * rank + step
    return {"odd": torch.full((3,), rank, dtype=torch.uint8), "moments": values, "count": torch.tensor(float(step))}


def same(found, rank, step):
    expected = shard(rank, step)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def size(rank):
    return sum(each.nbytes for each in shard(rank, 0).values())


def lose(memory, lost, **options):
    """What the rank has after the loss: the replacement of a lost one begins with nothing."""
    return PeerMemory(**options) if dist.get_rank() in lost else memory


def test_any_loss_that_leaves_a_copy_is_mended_and_the_next_one_as_well():
    def fn():
        rank = dist.get_rank()
        for options in ({}, {"placement": "ring"}, {"machine": 2}):
            memory = PeerMemory(**options)
            for step in (1, 2, 3):
                memory.save(shard(rank, step), step=step)
            assert memory.held_bytes == placement.held_bytes(size(rank), size(memory.holds))
            assert memory.sent_bytes == 3 * size(rank)
            losses = [c for k in (1, 2) for c in combinations(range(4), k) if not placement.gone(memory.held_by, c)]
            for lost in losses:
                memory = lose(memory, lost, **options)
                before = memory.sent_bytes
                found, step = memory.restore(lost)
                assert step == 3 and same(found, rank, 3), (options, lost)
                sent = size(memory.holds) * (memory.holds in lost) + size(rank) * (memory.held_by[rank] in lost)
                assert memory.sent_bytes - before == sent
            memory.save(shard(rank, 4), step=4)
            found, step = memory.restore()
            assert step == 4 and same(found, rank, 4)
        return len(losses)

    assert launch(fn, ranks=4)[0] == 4 + 4  # of two machines of two ranks: any of the pairs that is no shard and copy


def test_a_shard_that_is_lost_with_its_copy_is_told_on_all_ranks():
    def fn():
        memory, told = PeerMemory(), []
        for lost in ((), (0, 1)):
            try:
                memory.restore(lost)
            except ValueError as error:
                told.append(str(error))
        return told

    told = ["there is no checkpoint in memory yet"]
    told += ["the shards of ranks 0 (held by 1), 1 (held by 0) were lost with their copies: load what is on the disk"]
    assert launch(fn, ranks=2).results == [told] * 2


def test_who_holds_what():
    assert placement.holders(4) == [1, 0, 3, 2]
    assert placement.holders(4, placement="ring") == [1, 2, 3, 0]
    assert placement.holders(5) == [1, 0, 3, 4, 2]
    assert placement.holders(8, machine=4) == [4, 5, 6, 7, 0, 1, 2, 3]
    for machines in range(2, 9):
        for machine in (1, 3):
            for kind in (placement.RING, placement.PAIRS):
                held_by = placement.holders(machines * machine, machine=machine, placement=kind)
                assert sorted(held_by) == list(range(machines * machine))
                assert all(rank // machine != holder // machine for rank, holder in enumerate(held_by))
    for wrong in ({"ranks": 3, "machine": 3}, {"ranks": 5, "machine": 2}, {"ranks": 4, "placement": "star"}):
        with pytest.raises(ValueError, match="expected"):
            placement.holders(**wrong)


def test_the_chance_that_two_losses_leave_nothing():
    for machines in range(3, 17):
        assert placement.loss_chance(machines, placement="ring") == pytest.approx(2 / (machines - 1))
        if machines % 2 == 0:
            assert placement.loss_chance(machines) == pytest.approx(1 / (machines - 1))
        assert placement.loss_chance(machines, 1) == 0
