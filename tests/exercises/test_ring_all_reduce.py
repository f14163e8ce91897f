"""`ring_all_reduce`: every shortcut fails with its own message."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, by_value, solutions
from neighbors import neighbors, swap

from parallel_lab import collectives
from parallel_lab.course.checks import check
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.rank_side import Case

by_value(__name__)
NAME = "ring_all_reduce"
SOLUTION = solutions(NAME)


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
    return torch.cat([SOLUTION[NAME](flat[:even]) if even else flat[:0], flat[even:]]).view(tensor.shape)


def token_in_every_round(tensor):
    _, _, right, left = neighbors()
    swap(torch.ones(1), right, torch.empty(1), left)
    return SOLUTION[NAME](tensor)


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


def whole_tensors_go_round(tensor):
    n, _, right, left = neighbors()
    total, passing = tensor.clone(), tensor
    for _ in range(n - 1):
        passing = swap(passing, right, torch.empty_like(tensor), left)
        total += passing
    return total


def from_where_it_sends(tensor):
    n, _, right, _ = neighbors()
    total, passing = tensor.clone(), tensor
    for _ in range(n - 1):
        passing = swap(passing, right, torch.empty_like(tensor), right)
        total += passing
    return total


def into_what_is_sent(tensor):
    n, _, right, left = neighbors()
    total, passing = tensor.clone(), tensor.clone()
    for _ in range(n - 1):
        total += swap(passing, right, passing, left)
    return total


def the_sum_so_far(tensor):
    n, _, right, left = neighbors()
    total = tensor.clone()
    for _ in range(n - 1):
        total = total + swap(total, right, torch.empty_like(tensor), left)
    return total


def finished_chunks_added(tensor):
    n, rank, right, left = neighbors()
    chunks = torch.tensor_split(tensor.clone().view(-1), n)
    for k in range(n - 1):
        chunks[(rank - k - 1) % n].add_(swap(chunks[(rank - k) % n], right, torch.empty_like(chunks[0]), left))
    for k in range(n - 1):
        chunks[(rank - k) % n].add_(swap(chunks[(rank - k + 1) % n], right, torch.empty_like(chunks[0]), left))
    return torch.cat(chunks).view(tensor.shape)


def no_end_of_the_ring(tensor):
    n, rank, _, _ = neighbors()
    return tensor + swap(tensor, rank + 1, torch.empty_like(tensor), rank - 1) if n > 1 else tensor.clone()


def cut_to_equal_chunks(tensor):
    return equal_chunks_only(tensor).view(-1)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (through_the_root, 2, "at 3 ranks: rank 0 sent 192 kB, a ring sends 128 kB"),
    (ready_made, 1, "rank 0 called all_reduce"),
    (equal_chunks_only, 4, "at 3 ranks, shape \\(7,\\): rank 0: element 6 is"),
    (token_in_every_round, 3, "at 2 ranks: rank 0 sent 3 messages, a ring sends 2"),
    (whole_tensors_go_round, 3, "at 2 ranks: rank 0 sent 1 message, a ring sends 2\n +How many rounds"),
    (everyone_to_everyone, 1, "rank 0 sent to ranks 1, 2; expected 1"),
    (from_where_it_sends, 0, "Rank 0 receives from rank 1, which sends to rank 2; .*comes from rank 2. Receive .*\n"),
    (from_where_it_sends, 0, "At 2 ranks this test passes: what in your answer holds for two ranks alone"),
    (
        into_what_is_sent,
        0,
        "rank 0 receives into a tensor that it is still sending \\(neighbors.py, line .*\n +What comes",
    ),
    (
        the_sum_so_far,
        0,
        "at 3 ranks: rank 0.*\n +The tensor of rank 2 is counted 2 times.*At 2 ranks this test passes: what in",
    ),
    (finished_chunks_added, 0, "What comes in the second half is finished"),
    (no_end_of_the_ring, 0, "ValueError: there is no rank (2 to send to|-1 to receive from): the ranks are 0 to 1"),
    (cut_to_equal_chunks, 4, "in the shape that came: chunks may differ in length"),
    (the_reference, 0, "the_reference uses parallel_lab.collectives"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def chunks_of_one_size(tensor):
    n, rank, right, left = neighbors()
    chunks = tensor.clone().view(n, -1)
    for k in range(n - 1):
        chunks[(rank - k - 1) % n] += swap(chunks[(rank - k) % n], right, torch.empty_like(chunks[0]), left)
    for k in range(n - 1):
        chunks[(rank - k) % n] = swap(chunks[(rank - k + 1) % n], right, torch.empty_like(chunks[0]), left)
    return chunks.view(tensor.shape)


def chunks_of_torch_chunk(tensor):
    n, rank, right, left = neighbors()
    chunks = list(tensor.clone().view(-1).chunk(n))
    for k in range(2 * (n - 1)):
        outgoing, incoming = (rank - k) % n, (rank - k - 1) % n
        came = swap(chunks[outgoing], right, torch.empty_like(chunks[incoming]), left)
        chunks[incoming] = chunks[incoming] + came if k < n - 1 else came
    return torch.cat(chunks).view(tensor.shape)


STEPS = [  # (an answer that ends the step, what the next step's check says)
    (whole_tensors_go_round, "at 3 ranks: rank 0 sent 192 kB, a ring sends 128 kB"),
    (
        chunks_of_one_size,
        "shape '.3, -1.' is invalid for input of size 7(.*\n)+ +Return the sum over all ranks, in the",
    ),
]


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_answer_of_a_step_passes_it_and_fails_the_next(step):
    assert_ends_a_step(NAME, step, *STEPS[step - 1])


def test_index_of_a_chunk_that_torch_chunk_does_not_make_is_explained():
    report = check(NAME, chunks_of_torch_chunk, save=False)
    assert [verdict.state for verdict in report.verdicts] == ["passed"] * 4 + ["failed"], repr(report)
    failed = report.failed
    assert "at 2 ranks, shape (1,): rank" in failed.seen and "IndexError" in failed.seen, repr(report)
    assert failed.advice.startswith("torch.chunk makes fewer than n chunks"), repr(report)


def test_error_at_a_size_that_divides_gets_no_advice_about_sizes():
    raised = EXERCISES[NAME].raised
    assert raised(Case(3, (("shape", (12_000,)),)), "IndexError") == ""
    assert raised(Case(3, (("shape", (7,)),)), "IndexError").startswith("Return the sum over all ranks, in the shape")
