"""Exercises of chapter 02: solutions score full marks, stubs none, and every shortcut fails with its own message."""

import importlib
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab import collectives
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check
from parallel_lab.course.exercises import EXERCISES
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NAMES = [exercise.name for exercise in EXERCISES.values() if exercise.notebook == "02_collectives"]
SOLUTIONS = functions_in(ROOT / "solutions" / "02_collectives.ipynb")
RING = SOLUTIONS["ring_all_reduce"]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize("name", NAMES)
def test_solution_scores_full_marks(name):
    report = check(name, SOLUTIONS[name])
    assert report.score == 1, repr(report)
    assert EXERCISES[name].solution_note in repr(report)


@pytest.mark.parametrize("name", NAMES)
def test_untouched_stub_scores_nothing(name):
    stubs = functions_in(ROOT / "exercises" / "02_collectives.ipynb")
    report = check(name, stubs[name])
    assert report.score == 0
    assert not report.passed


def test_exercises_are_what_the_command_writes():
    written = (ROOT / "exercises" / "02_collectives.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, "02_collectives")


def neighbours():
    n, rank = dist.get_world_size(), dist.get_rank()
    return n, rank, (rank + 1) % n, (rank - 1) % n


def swap(outgoing, to, incoming, source):
    if dist.get_world_size() == 1:
        return incoming.copy_(outgoing)
    for work in dist.batch_isend_irecv(
        [dist.P2POp(dist.isend, outgoing.contiguous(), to), dist.P2POp(dist.irecv, incoming, source)]
    ):
        work.wait()
    return incoming


# --- all-reduce


def through_the_root(tensor):
    n, rank, _, _ = neighbours()
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
    n, rank, _, _ = neighbours()
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
    _, _, right, left = neighbours()
    swap(torch.ones(1), right, torch.empty(1), left)
    return RING(tensor)


def whole_tensor_round_the_ring(tensor):
    n, _, right, left = neighbours()
    total, passing = tensor.clone(), tensor.clone()
    for _ in range(n - 1):
        passing = swap(passing, right, torch.empty_like(passing), left)
        total += passing
    return total


def everyone_to_everyone(tensor):
    """Right bytes and messages, but over all links."""
    n, rank, _, _ = neighbours()
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
    n, rank, _, _ = neighbours()
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{tag}{rank}", tensor.numpy().tobytes())
    parts = [torch.frombuffer(bytearray(store.get(f"{tag}{other}")), dtype=tensor.dtype) for other in range(n)]
    return torch.stack(parts).sum(0).view(tensor.shape)


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


ALL_REDUCE = [
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
    (recorder_cleared, "rank 0 sent 0 B by messages; in any all-reduce a rank must send 96 kB"),
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


# --- broadcast


def star(tensor, root=0):
    n, rank, _, _ = neighbours()
    if rank != root:
        dist.recv(tensor, root)
        return
    for other in range(n):
        if other != root:
            dist.send(tensor, other)


def chain(tensor, root=0):
    _, rank, right, left = neighbours()
    if rank != root:
        dist.recv(tensor, left)
    if right != root:
        dist.send(tensor, right)


def nearest_last(tensor, root=0):
    """A tree with few messages a rank, which serves the leaf first: one round too many at 4 ranks."""
    n, rank, _, _ = neighbours()
    place, sends = (rank - root) % n, {0: (1, 2), 2: (3,), 3: (4, 5)}
    before = {to: place for place, to_all in sends.items() for to in to_all}
    if place:
        dist.recv(tensor, (before[place] + root) % n)
    for to in sends.get(place, ()):
        if to < n:
            dist.send(tensor, (to + root) % n)


def root_zero_only(tensor, root=0):
    SOLUTIONS["tree_broadcast"](tensor, 0)


def broadcast_ready_made(tensor, root=0):
    dist.broadcast(tensor, root)


BROADCAST = [
    (star, "at 4 ranks: rank 0 sent 3 messages, a tree sends at most 2"),
    (chain, "at 4 ranks: the messages took 3 rounds, a binomial tree takes 2"),
    (nearest_last, "at 4 ranks: the messages took 3 rounds, a binomial tree takes 2"),
    (root_zero_only, "at 2 ranks, root 1: rank 0's tensor: element"),
    (broadcast_ready_made, "rank 0 called broadcast"),
]


# --- all-to-all


def gather_everything(blocks):
    n, rank, right, left = neighbours()
    held = {rank: torch.stack(blocks)}
    for k in range(n - 1):
        outgoing, incoming = (rank - k) % n, (rank - k - 1) % n
        held[incoming] = swap(held[outgoing], right, torch.empty_like(held[outgoing]), left)
    return [held[source][rank].clone() for source in range(n)]


def in_rank_order(blocks):
    n, rank, _, _ = neighbours()
    received = [torch.empty_like(block) for block in blocks]
    received[rank].copy_(blocks[rank])
    for other in range(n):
        if other != rank:
            dist.send(blocks[other], other)
            dist.recv(received[other], other)
    return received


def all_to_all_ready_made(blocks):
    gathered = [torch.empty_like(torch.stack(blocks)) for _ in blocks]
    dist.all_gather(gathered, torch.stack(blocks))
    return [one[dist.get_rank()].clone() for one in gathered]


def own_block_forgotten(blocks):
    received = SOLUTIONS["all_to_all"](blocks)
    received[dist.get_rank()].zero_()
    return received


ALL_TO_ALL = [
    (gather_everything, "at 2 ranks: rank 0 sent 1.92 kB, an all-to-all sends 960 B"),
    (in_rank_order, "a circle: rank 0 waits for"),
    (all_to_all_ready_made, "rank 0 called all_gather"),
    (own_block_forgotten, "at 1 rank: rank 0, item 0,: element"),
]


# --- the deadlock


def never_waited(tensor):
    n, _, right, left = neighbours()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    dist.isend(tensor, right)
    dist.recv(received, left)
    return received


PENDING = []


def kept_and_never_waited(tensor):
    n, _, right, left = neighbours()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    PENDING.append(dist.isend(tensor, right))
    dist.recv(received, left)
    return received


def asleep(tensor):
    n, rank, right, left = neighbours()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    time.sleep(0.05 * rank)
    dist.send(tensor, right)
    dist.recv(received, left)
    return received


def nothing_sent(tensor):
    return tensor.clone()


def one_rank_skips(tensor):
    n, rank, right, left = neighbours()
    received = tensor.clone()
    if rank != n - 1:
        dist.send(tensor, right)
    if rank != 0:
        dist.recv(received, left)
    return received


def by_all_gather(tensor):
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered[dist.get_rank() - 1]


SHIFT = [
    (never_waited, "isend"),  # the handle is gone: the message may be lost with it, or may arrive
    (kept_and_never_waited, "never waited for the isend to rank 1"),
    (asleep, "a circle: rank 0 waits for"),
    (nothing_sent, "at 2 ranks: rank 0: element"),
    (one_rank_skips, "at 2 ranks: rank 0: element"),
    (by_all_gather, "rank 0 called all_gather"),
]


def even_and_odd(tensor):
    """Not a cheat: the textbook's other way out."""
    n, rank, right, left = neighbours()
    received = torch.empty_like(tensor)
    if n == 1:
        return received.copy_(tensor)
    for sending in (rank % 2 == 0, rank % 2 == 1):
        dist.send(tensor, right) if sending else dist.recv(received, left)
    return received


CHEATS = [
    pytest.param(name, fn, said, id=f"{name}-{fn.__name__}")
    for name, cases in (
        ("ring_all_reduce", ALL_REDUCE),
        ("tree_broadcast", BROADCAST),
        ("all_to_all", ALL_TO_ALL),
        ("ring_shift", SHIFT),
    )
    for fn, said in cases
]


@pytest.mark.parametrize(("name", "cheat", "said"), CHEATS)
def test_cheat_fails_with_its_message(name, cheat, said):
    report = check(name, cheat)
    assert not report.passed
    assert said in repr(report), repr(report)


def test_other_right_answers_pass():
    report = check("ring_shift", even_and_odd)
    assert report.passed, repr(report)


def test_recorder_switched_off_changes_nothing():
    def switched_off(tensor):
        recorder().enabled = False
        return RING(tensor)

    report = check("ring_all_reduce", switched_off)
    assert report.passed, repr(report)
