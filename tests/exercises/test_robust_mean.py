"""`robust_mean`: a plain mean, one side only, the median, a subtraction, a mask, and NaN as a zero."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value

by_value(__name__)
NAME = "robust_mean"


def gathered(gradient):
    rows = [torch.empty_like(gradient) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, gradient)
    return torch.stack(rows)


def bears(f):
    if dist.get_world_size() <= 2 * f:
        raise ValueError("too many lies")


def plain(gradient, f):
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size()


def one_side(gradient, f):
    rows = gathered(gradient)
    return rows.gather(0, rows.abs().argsort(0)[: len(rows) - f]).mean(0)


def median(gradient, f):
    return gathered(gradient).quantile(0.5, dim=0)


def subtracts(gradient, f):
    bears(f)
    rows = gathered(gradient)
    ends = rows.topk(f, 0).values.sum(0) + rows.topk(f, 0, largest=False).values.sum(0)
    return (rows.sum(0) - ends) / (len(rows) - 2 * f)


def masks(gradient, f):
    bears(f)
    rows = gathered(gradient)
    places = rows.argsort(0).argsort(0)
    kept = ((places >= f) & (places < len(rows) - f)).double()
    return (rows * kept).sum(0) / kept.sum(0)


def nan_as_zero(gradient, f):
    bears(f)
    rows = gathered(gradient).nan_to_num(0.0).sort(0).values
    return rows[f : len(rows) - f].mean(0)


def sorts(gradient, f):
    rows = gathered(gradient).sort(0).values
    return rows[f : len(rows) - f].mean(0)


CHEATS = [  # (answer, the test that sees through it, what it says)
    (plain, 0, "at 5 ranks, f 1: it is the mean of all gradients, the lies among them\n.*move a mean anywhere"),
    (one_side, 0, "only the f values of the largest magnitude were left out\n.*on each side"),
    (median, 0, "at 5 ranks, f 1: it is the coordinate-wise median\n.*has less noise"),
    (subtracts, 2, r"the robust mean(.*\n)*.*takes the other digits with it"),
    (masks, 2, r"the robust mean(.*\n)*.*0 times infinity is NaN"),
    (nan_as_zero, 2, r"the robust mean(.*\n)*.*Where does torch.sort put it"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def shared_out(gradient, f):
    """Not a cheat: each rank sorts its share of the coordinates, which takes the bytes of an all-reduce."""
    bears(f)
    n, size = dist.get_world_size(), len(gradient)
    padded = torch.nn.functional.pad(gradient, (0, -size % n))
    mine = torch.empty_like(padded)
    dist.all_to_all_single(mine, padded)
    own = mine.view(n, -1).sort(0).values[f : n - f].mean(0)
    parts = [torch.empty_like(own) for _ in range(n)]
    dist.all_gather(parts, own)
    return torch.cat(parts)[:size]


def by_rank_0(gradient, f):
    """Not a cheat: rank 0 gathers, sorts and broadcasts, so nothing arrives at the others in the gather."""
    bears(f)
    n, rank = dist.get_world_size(), dist.get_rank()
    rows = [torch.empty_like(gradient) for _ in range(n)] if rank == 0 else None
    dist.gather(gradient, rows)
    mean = torch.stack(rows).sort(0).values[f : n - f].mean(0) if rows else torch.empty_like(gradient)
    dist.broadcast(mean, 0)
    return mean


def test_nothing_left_out_is_a_corner_case():
    def to_minus_f(gradient, f):
        bears(f)
        return gathered(gradient).sort(0).values[f:-f].mean(0)

    assert_found_out(NAME, to_minus_f, 0, r"at 2 ranks, f 0: (.*\n)*.*from 0 to -0")


def test_what_is_no_tensor_is_said():
    assert_found_out(NAME, lambda gradient, f: (gradient, f), 0, "returned a tuple of 2: expected a tensor")
    assert_found_out(NAME, lambda gradient, f: gradient.numpy(), 0, "object of class ndarray: expected a tensor")


def test_other_right_answers_pass():
    assert_passes(NAME, shared_out)
    assert_passes(NAME, by_rank_0)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, subtracts, "takes the other digits with it")
    assert_found_out(NAME, sorts, 3, "raise a ValueError")
