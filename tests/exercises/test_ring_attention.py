"""`ring_attention`: wrong masks, means of means, an overflow, keys that stay, and gradients of one rank or of all."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions

by_value(__name__)
NAME = "ring_attention"
SPACE = solutions(NAME)
Ring, merge, pass_on, seen_of = (SPACE[name] for name in ("Ring", "merge", "pass_on", "seen_of"))
ring_attention = SPACE[NAME]


def forward_with(merge=merge, seen=seen_of):
    """A ring whose merge or whose masks differ."""

    def changed(query, key, value, block, block_backward):
        rank, n, shard = dist.get_rank(), dist.get_world_size(), torch.stack((key, value))
        out = lse = None
        for turn in range(n):
            coming, works = pass_on(shard) if turn < n - 1 else (None, [])
            some, mask = seen((rank - turn) % n, query.shape[2])
            if some:
                found = block(query, *shard, mask)
                out, lse = found if out is None else merge(out, lse, *found)
            for work in works:
                work.wait()
            shard = coming
        return out

    return changed


def diagonal_everywhere(owner, tokens):
    """Positions of each block counted from 0."""
    return True, torch.ones(tokens, tokens, dtype=torch.bool).tril()


def masks_all(owner, tokens):
    """A later shard is attended to as well, with nothing visible."""
    rank = dist.get_rank()
    visible = torch.ones(tokens, tokens, dtype=torch.bool).tril(tokens * (rank - owner))
    return True, visible


class Mean:
    """Counts blocks, and forgets their weights."""

    def __init__(self):
        self.count = 1

    def __call__(self, out, lse, mean, more):
        self.count += 1
        return out + (mean - out) / self.count, lse


def averages(*arguments):
    return forward_with(Mean())(*arguments)


def overflows(out, lse, mean, more):
    a, b = lse.exp().unsqueeze(-1), more.exp().unsqueeze(-1)
    return (a * out + b * mean) / (a + b), (a + b).log().squeeze(-1)


def gathers(query, key, value, block, block_backward):
    """The same bytes: all keys and values on every rank, and then block after block."""
    own = torch.stack((key, value))
    shards = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(shards, own)
    out = lse = None
    for owner in range(dist.get_rank() + 1):
        found = block(query, *shards[owner], seen_of(owner, query.shape[2])[1])
        out, lse = found if out is None else merge(out, lse, *found)
    return out


class OwnPart(Ring):
    """Backward from what this rank's queries say, of this rank's keys alone."""

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, lse = ctx.saved_tensors
        shards = [torch.empty_like(torch.stack((key, value))) for _ in range(dist.get_world_size())]
        dist.all_gather(shards, torch.stack((key, value)))
        of_query, of_own = torch.zeros_like(query), None
        for owner in range(dist.get_rank() + 1):
            mask = seen_of(owner, query.shape[2])[1]
            more, *of_own = ctx.block_backward(grad, query, *shards[owner], mask, out, lse)
            of_query += more
        return of_query, *of_own, None, None


class SumOfAll(Ring):
    """Backward with the gradients of all keys on every rank, summed by an all-reduce."""

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, lse = ctx.saved_tensors
        shards = [torch.empty_like(torch.stack((key, value))) for _ in range(dist.get_world_size())]
        dist.all_gather(shards, torch.stack((key, value)))
        of_query, of_all = torch.zeros_like(query), torch.zeros_like(torch.stack(shards))
        for owner in range(dist.get_rank() + 1):
            mask = seen_of(owner, query.shape[2])[1]
            more, *of_shard = ctx.block_backward(grad, query, *shards[owner], mask, out, lse)
            of_query += more
            of_all[owner] = torch.stack(of_shard)
        dist.all_reduce(of_all)
        return of_query, *of_all[dist.get_rank()], None, None


CHEATS = [  # (answer, the test that sees through it, what it says)
    (forward_with(seen=diagonal_everywhere), 0, "at 2 ranks: every block was masked from its diagonal down"),
    (forward_with(seen=masks_all), 0, "rank 0: 96 of 96 elements of the output are NaN .*\n.*sees no key of a block"),
    (averages, 0, "at 2 ranks: the means of the blocks count the same"),
    (gathers, 3, r"the beginning of a block holds .* kB, two shards .*\n.*no rank needs all keys and values at once"),
    (OwnPart.apply, 4, "its part of the gradient of key: element .*\n.*the sum of what all of them say"),
    (SumOfAll.apply, 5, "sent .* in the backward pass 0, a ring of shards and one of their gradients send"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, forward_with(overflows), "are NaN or infinite\n.*exp of a log-sum-exp overflows")
    assert_ends_a_step(NAME, 2, gathers, "at the beginning of a block holds")
    assert_ends_a_step(NAME, 3, OwnPart.apply, "its part of the gradient of key: element")
    assert_ends_a_step(NAME, 4, SumOfAll.apply, "a ring of shards and one of their gradients send")
