"""`top_k_hook`: sums, zeros that travel, places of eight bytes, and residuals lost, shared or rounded away."""

import math

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "top_k_hook"


class Sent:
    def __init__(self, works, then):
        self.works, self.then = works, then

    def wait(self):
        for work in self.works:
            work.wait()
        self.then()


def gathered(group, flat, numbers, places, divide=True):
    """A handle that adds up everyone's numbers at everyone's places."""
    n = dist.get_world_size(group)
    every = [[torch.empty_like(mine) for _ in range(n)] for mine in (numbers, places)]
    works = [
        dist.all_gather(out, mine, group=group, async_op=True)
        for out, mine in zip(every, (numbers, places), strict=True)
    ]

    def then():
        flat.zero_()
        for some, where in zip(*every, strict=True):
            flat.index_add_(0, where, some / (n if divide else 1))

    return Sent(works, then)


def hook_of(keep=torch.float32, key=lambda bucket: bucket.index, place=torch.int32, feedback=True, **options):
    """An answer with a part of it done in another way."""

    def answer(fraction):
        owed = {}

        def hook(group, bucket):
            flat = bucket.flat
            wide = torch.promote_types(flat.dtype, keep)
            wanted = flat.to(wide) + (owed.get(key(bucket), 0) if feedback else 0)
            places = wanted.abs().topk(max(1, math.ceil(fraction * len(flat)))).indices
            numbers = wanted[places].to(flat.dtype)
            owed[key(bucket)] = wanted.index_fill(0, places, 0.0)
            return gathered(group, flat, numbers, places.to(place), **options)

        return hook

    return answer


def zeros_travel(fraction):
    owed = {}

    def hook(group, bucket):
        flat = bucket.flat
        wanted = flat + owed.get(bucket.index, 0)
        places = wanted.abs().topk(max(1, math.ceil(fraction * len(flat)))).indices
        flat.zero_()[places] = wanted[places] / dist.get_world_size(group)
        owed[bucket.index] = wanted.index_fill(0, places, 0.0)
        return dist.all_reduce(flat, group=group, async_op=True)

    return hook


CHEATS = [  # (answer, the test that sees through it, what it says)
    (hook_of(divide=False), 0, "at 2 ranks: the bucket has the sum over the ranks\n.*is the mean over all ranks"),
    (
        zeros_travel,
        1,
        r"rank 0 sent 36.0 kB in step 0, its numbers and places, .* are 1,080 B\n.*zeros need not travel",
    ),
    (hook_of(place=torch.int64), 1, r"sent 1,440 B in step 0, .* are 1,080 B\n.*places of four bytes"),
    (hook_of(feedback=False), 2, "at 3 ranks: what was not sent in step 0 is lost\n.*it owes"),
    (hook_of(key=lambda bucket: 0), 2, "at 3 ranks: what one bucket owes was added to another"),
    (hook_of(keep=torch.bfloat16), 3, r"that were owed 1 and 61 times 0.00195312 come out as 1, expected 1.119"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def one_message(fraction):
    """Not a cheat: a class of its own, and numbers and places in one message of bytes."""

    class Hook:
        def __init__(self):
            self.owed = {}

        def __call__(self, group, bucket):
            flat, n = bucket.flat, dist.get_world_size(group)
            wanted = flat.to(torch.promote_types(flat.dtype, torch.float32))
            if bucket.index in self.owed:
                wanted = wanted + self.owed[bucket.index]
            places = wanted.abs().argsort(descending=True)[: max(1, math.ceil(fraction * len(flat)))].int()
            numbers = wanted[places].to(flat.dtype)
            rest = wanted.clone()
            rest[places] -= numbers
            self.owed[bucket.index] = rest
            message = torch.cat([numbers.view(torch.uint8), places.view(torch.uint8)])
            every = message.new_empty(n, len(message))
            work = dist.all_gather_into_tensor(every.view(-1), message, group=group, async_op=True)

            def then():
                flat.zero_()
                for row in every:
                    size = numbers.nbytes
                    mine, where = row[:size].clone().view(flat.dtype), row[size:].clone().view(torch.int32)
                    flat.index_add_(0, where, mine / n)

            return Sent([work], then)

    return Hook()


def test_another_right_answer_passes():
    assert_passes(NAME, one_message)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, zeros_travel, "zeros need not travel")
    assert_ends_a_step(NAME, 2, hook_of(feedback=False), "what was not sent in step 0 is lost")
