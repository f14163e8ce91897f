"""Messages that share memory while both are under way, and collectives left alone, are noticed, and no others."""

import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.runtime.rank.misused import watch_collectives, watch_messages


def messages(ways):
    """What was noticed in each of several ways to swap 8 numbers with the other rank, by kind of message."""
    found, other = watch_messages(), 1 - dist.get_rank()
    noticed = []
    for receive_first, sent, received in ways:
        numbers, before = torch.zeros(16), len(found)
        out, into = numbers[slice(*sent)], numbers[slice(*received)]
        first, second = [(dist.irecv, into), (dist.isend, out)][:: 1 if receive_first else -1]
        work = first[0](first[1], other)
        rest = second[0](second[1], other)
        rest.wait()
        work.wait()
        noticed.append([kind for kind, _ in found[before:]])
    return noticed, [line for _, line in found]


def test_a_message_into_memory_that_is_still_sent_is_noticed():
    ways = [
        (False, (0, 8), (0, 8)),
        (True, (0, 8), (4, 12)),
        (False, (0, 8), (8, 16)),  # side by side
        (False, (0, 0), (0, 0)),  # empty chunks
    ]
    for noticed, lines in launch(messages, ways, ranks=2, echo=False).results:
        assert noticed == [["recv"], ["send"], [], []]
        assert all("test_misused.py:" in line for line in lines), "the line is the learner's"


def one_after_the_other():
    found, numbers, rank = watch_messages(), torch.ones(8), dist.get_rank()
    (dist.send if rank == 0 else dist.recv)(numbers, 1 - rank)
    (dist.recv if rank == 0 else dist.send)(numbers, 1 - rank)
    return found


def test_memory_may_be_used_again_when_the_message_was_waited_for():
    assert launch(one_after_the_other, ranks=2, echo=False).results == [[], []]


def collectives():
    """The kinds left alone after each of several ways to call a collective, and the lines of all."""
    numbers = torch.ones(8)
    left = watch_collectives()
    ways = [
        lambda: dist.all_reduce(numbers),
        lambda: dist.all_reduce(numbers, async_op=True).wait(),
        lambda: dist.all_reduce(numbers, async_op=True).get_future().wait(),
        lambda: dist.barrier(),
        lambda: dist.all_reduce(numbers, async_op=True) and None,
        lambda: dist.broadcast(numbers, 0),
    ]
    kept = dist.broadcast(numbers, 0, async_op=True)
    seen = [[kind for kind, _ in left()]]
    kept.wait()
    for way in ways:
        way()
        seen.append([kind for kind, _ in left()])
    return seen, [line for _, line in left()]


def test_a_collective_that_nobody_waits_for_is_noticed():
    for ranks in (1, 2):
        for seen, lines in launch(collectives, ranks=ranks, echo=False).results:
            assert seen == [["broadcast"], [], [], [], [], ["all_reduce"], ["all_reduce"]]
            assert all("test_misused.py:" in line for line in lines), "the line is the learner's"
