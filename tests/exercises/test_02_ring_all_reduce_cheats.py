"""`ring_all_reduce`: every shortcut fails with its own message."""

import importlib
import sys

import cloudpickle
import pytest
import through_store
import torch
import torch.distributed as dist
from grading import assert_fails, solutions
from neighbors import neighbors, swap

from parallel_lab import collectives
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RING = solutions("02_collectives")["ring_all_reduce"]


def through_the_root(tensor):
    n, rank, _, _ = neighbors()
    total = tensor.clone()
    if rank:
        dist.send(total, 0)
        dist.recv(total, 0)
        return total
    for other in range(1, n):
        dist.recv(part := torch.empty_like(total), other)
        total += part
    for other in range(1, n):
        dist.send(total, other)
    return total


def ready_made(tensor):
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def equal_chunks_only(tensor):
    n = dist.get_world_size()
    flat = tensor.reshape(-1)
    even = flat.numel() // n * n
    return torch.cat([RING(flat[:even]) if even else flat[:0], flat[even:]]).view(tensor.shape)


def powers_of_two_only(tensor):
    n, rank, _, _ = neighbors()
    total, distance = tensor.clone(), 1
    while distance < n:
        if (other := rank ^ distance) < n:
            total += swap(total.clone(), other, torch.empty_like(total), other)
        distance *= 2
    return total


def barrier_in_every_round(tensor):
    dist.barrier()
    return RING(tensor)


def token_in_every_round(tensor):
    _, _, right, left = neighbors()
    swap(torch.ones(1), right, torch.empty(1), left)
    return RING(tensor)


def whole_tensor_round_the_ring(tensor):
    n, _, right, left = neighbors()
    total, passing = tensor.clone(), tensor.clone()
    for _ in range(n - 1):
        passing = swap(passing, right, torch.empty_like(passing), left)
        total += passing
    return total


def everyone_to_everyone(tensor):
    """Right bytes and messages, but over all links."""
    n, rank, _, _ = neighbors()
    chunks = list(torch.tensor_split(tensor.clone().view(-1), n))
    for k in range(1, n):
        to, source = (rank + k) % n, (rank - k) % n
        part = swap(torch.tensor_split(tensor.view(-1), n)[to], to, torch.empty_like(chunks[rank]), source)
        chunks[rank] = chunks[rank] + part
    for k in range(1, n):
        to, source = (rank + k) % n, (rank - k) % n
        chunks[source] = swap(chunks[rank], to, torch.empty_like(chunks[source]), source)
    return torch.cat(chunks).view(tensor.shape)


def the_reference(tensor):
    return collectives.all_reduce(tensor)


def the_reference_by_stealth(tensor):
    importlib.import_module(".".join(("parallel_lab", "collect" + "ives")))
    return RING(tensor)


def recorder_cleared(tensor):
    total = RING(tensor)
    recorder().spans.clear()
    return total


def by_files(tensor):
    with open(f"/tmp/parallel-lab-cheat-{dist.get_rank()}", "wb") as file:
        file.write(b"")
    return tensor


def by_store(tensor, tag="a"):
    """Through the rendezvous store, which is C++ and passes the audit hook."""
    return through_store.add_up(tensor, tag)


def by_store_with_messages_for_show(tensor):
    RING(tensor)
    return by_store(tensor, "b")


def own_group(tensor):
    total = tensor.clone()
    dist.all_reduce(total, group=dist.new_group(backend="gloo"))
    return total


class Liar:
    def __eq__(self, other):
        return True

    __hash__ = None


class LyingTensor(torch.Tensor):
    pass


def equal_to_everything(tensor):
    return Liar()


def tensor_subclass(tensor):
    return RING(tensor).as_subclass(LyingTensor)


def not_a_number(tensor):
    return torch.full_like(tensor, float("nan"))


def in_place(tensor):
    return tensor.copy_(RING(tensor))


def averaged(tensor):
    return RING(tensor) / dist.get_world_size()


CHEATS = [
    (through_the_root, "at 3 ranks: rank 0 sent 192 kB, a ring sends 128 kB"),
    (ready_made, "rank 0 called all_reduce"),
    (equal_chunks_only, "at 3 ranks: rank 0: element 6 is"),
    (powers_of_two_only, "at 3 ranks: rank 1: element"),
    (barrier_in_every_round, "rank 0 called barrier"),
    (token_in_every_round, "at 2 ranks: rank 0 sent 3 messages, a ring sends 2"),
    (whole_tensor_round_the_ring, "at 3 ranks: rank 0 sent 192 kB, a ring sends 128 kB"),
    (everyone_to_everyone, "rank 0 sent to ranks 1, 2; in a ring it sends to one"),
    (the_reference, "the_reference uses parallel_lab.collectives"),
    (the_reference_by_stealth, "used parallel_lab.collectives, the answer itself"),
    (recorder_cleared, "rank 0 sent 0 B by messages; in any all-reduce a rank must send 96.0 kB"),
    (by_files, "data may leave a rank only by messages of the process group"),
    (by_store, "rank 0 sent 0 B by messages"),
    (by_store_with_messages_for_show, "one message was changed on the way, and every rank still had the right result"),
    (own_group, "rank 0 sent 0 B by messages"),
    (equal_to_everything, "rank 0 returned an object of class Liar"),
    (tensor_subclass, "rank 0 returned an object of class LyingTensor"),
    (not_a_number, "element 0 is nan"),
    (in_place, "rank 0 changed its input"),
    (averaged, "every element is 0.5 times what it should be"),
]


@pytest.mark.parametrize(("cheat", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, said):
    assert_fails("ring_all_reduce", cheat, said)
