"""Blocks are split, merged and found as in PyTorch's allocator; fragmentation, also with expandable segments."""

import random

import pytest

from parallel_lab.performance import Pool
from parallel_lab.performance.memory_pool import MIB, PoolFull, rounded, segment_size


@pytest.mark.parametrize(
    ("request_bytes", "size", "segment"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 1, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (33 * MIB, 33 * MIB, 34 * MIB),
    ],
)
def test_sizes_of_requests_and_segments(request_bytes, size, segment):
    assert rounded(request_bytes) == size
    assert segment_size(size) == segment
    pool = Pool(100 * MIB)
    assert pool.allocate(request_bytes).size in (size, segment)  # what is not split off belongs to it
    assert pool.reserved_bytes == segment


def test_the_smallest_block_that_fits_is_taken_and_split():
    pool = Pool(200 * MIB)
    blocks = [pool.allocate(size * MIB) for size in (4, 6, 4, 6)]
    assert pool.reserved_bytes == 20 * MIB and pool.allocated_bytes == 20 * MIB
    pool.free(blocks[1])
    pool.free(blocks[2])
    assert pool.largest_free_block() == 10 * MIB, "neighbors become one"
    again = pool.allocate(3 * MIB)
    assert (again.start, again.size, pool.largest_free_block()) == (4 * MIB, 3 * MIB, 7 * MIB)
    with pytest.raises(ValueError, match="given back twice"):
        pool.free(blocks[2])


def test_what_is_not_worth_a_block_stays_with_its_owner():
    pool = Pool(100 * MIB)
    assert pool.allocate(19 * MIB + MIB // 2).size == 20 * MIB, "half a MiB is not split off a large block"
    assert pool.allocate(MIB - 512).size == MIB - 512, "512 bytes are split off a small one"


def fragmented(pool, count=5):
    """Segments of 20 MiB with a long-lived 2 MiB at the end of each."""
    temporary = []
    for _ in range(count):
        temporary += [pool.allocate(9 * MIB), pool.allocate(9 * MIB)]
        pool.allocate(2 * MIB)
    for block in temporary:
        pool.free(block)
    return pool


def test_a_request_fails_though_enough_is_free():
    pool = fragmented(Pool(100 * MIB))
    assert pool.free_bytes == 90 * MIB
    assert pool.largest_request() == 18 * MIB
    assert pool.fragmentation == 0.8
    text = (
        r"a request of 31.5 MB fails: 94.4 MB of 105 MB are free, the largest free block has 18.9 MB, .* has 0 B left"
    )
    with pytest.raises(PoolFull, match=text):
        pool.allocate(30 * MIB)
    assert pool.allocate(18 * MIB)


def test_expandable_segments_map_free_pages_elsewhere():
    pool = fragmented(Pool(120 * MIB, expandable=True))
    assert pool.free_bytes == 110 * MIB
    assert pool.largest_request() == 20 * MIB, "each page of 20 MiB has an owner; what is new is free"
    largest = {}
    for expandable in (True, False):
        pool = Pool(100 * MIB, expandable=expandable)
        large = pool.allocate(40 * MIB)
        small = pool.allocate(MIB + 512)
        pool.free(large)
        largest[expandable] = pool.free_bytes - pool.largest_request()
        pool.free(small)
    assert largest == {True: 0, False: 20 * MIB - small.size}, "a whole free segment is given back, a part of one not"


def test_growing_tensors_fragment_segments_and_not_an_expandable_one():
    """Each step asks for a little more: a sequence that grows."""

    def most(expandable):
        pool = Pool(400 * MIB, expandable=expandable)
        held = None
        for size in range(11, 60, 3):
            new = pool.allocate(size * MIB)
            if held:
                pool.free(held)
            held = new
        return pool.reserved_bytes

    assert most(True) <= 160 * MIB
    assert most(False) > 1.5 * most(True)


@pytest.mark.parametrize("expandable", [False, True])
def test_whatever_happens_blocks_lie_side_by_side(expandable):
    chance, pool, held = random.Random(0), Pool(80 * MIB, expandable=expandable), []
    failed = 0
    for _ in range(600):
        if held and chance.random() < 0.48:
            pool.free(held.pop(chance.randrange(len(held))))
        else:
            try:
                held.append(pool.allocate(int(2 ** chance.uniform(8, 26))))
            except PoolFull:
                failed += 1
        for segment in pool.segments:
            at = 0
            for one, other in zip(segment.blocks, [*segment.blocks[1:], None], strict=True):
                assert one.start == at and one.size > 0
                at += one.size
                if other:
                    assert not (one.free and one.mapped and other.free and other.mapped), "two that should be one"
            assert segment.size == sum(b.size for b in segment.blocks if b.mapped)
        assert sum(b.size for b in held) == pool.allocated_bytes <= pool.reserved_bytes <= pool.capacity_bytes
    assert failed, "the pool was never full"
