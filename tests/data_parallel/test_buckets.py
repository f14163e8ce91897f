"""Who travels with whom: order, sizes, dtypes; and how a gradient gets into its bucket."""

import pytest
import torch
from torch import nn

from parallel_lab.agree.same_model import partition
from parallel_lab.data_parallel.ddp import Bucket
from parallel_lab.data_parallel.guards import FiniteGradients


def named(*sizes, dtype=torch.float32):
    return [(f"p{i}", nn.Parameter(torch.zeros(size, dtype=dtype))) for i, size in enumerate(sizes)]


def names(buckets):
    return [[name for name, _ in members] for members in buckets]


def test_a_bucket_closes_once_it_holds_its_bytes():
    assert names(partition(named(2, 2, 1, 9, 1), 16)) == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert names(partition(named(2, 2, 1), 1)) == [["p0"], ["p1"], ["p2"]]
    assert names(partition(named(2, 2, 1), 10**9)) == [["p0", "p1", "p2"]]


def test_dtypes_do_not_mix_and_buckets_stand_in_the_order_in_which_they_fill():
    mixed = [(f"p{i}", nn.Parameter(torch.zeros(4, dtype=dtype))) for i, dtype in enumerate([torch.float64] * 2)]
    mixed = [mixed[0], *named(8), mixed[1]]
    found = partition([("a", mixed[0][1]), ("b", mixed[1][1]), ("c", mixed[2][1])], 40)
    assert names(found) == [["b"], ["a", "c"]], "a waits for c, so b is full first"


def test_every_parameter_is_in_exactly_one_bucket():
    given = named(*range(1, 30))
    buckets = [Bucket(i, members) for i, members in enumerate(partition(given, 200))]
    assert [p for bucket in buckets for p in bucket.parameters] == [p for _, p in given]
    assert sum(bucket.flat.nbytes for bucket in buckets) == sum(p.nbytes for _, p in given)


def test_a_gradient_becomes_a_view_scaled_once():
    (_, p), (_, unused) = given = named(3, 2)
    bucket = Bucket(0, given)
    p.grad = torch.tensor([2.0, 4.0, 6.0])
    bucket.take(0, 0.5)
    assert bucket.missing == {1}
    bucket.take(1, 0.5)
    assert bucket.missing == set()
    assert bucket.flat.tolist() == [1, 2, 3, 0, 0]
    assert [q.grad.data_ptr() for q in (p, unused)] == [view.data_ptr() for view in bucket.views]
    bucket.reset()
    p.grad += 1  # what autograd does with a gradient that is there: in place
    bucket.take(0, 1.0)
    assert bucket.flat.tolist() == [2, 3, 4, 0, 0]
    old, kept = bucket.flat, p.grad
    bucket.renew()
    assert bucket.flat.tolist() == [0] * 5
    assert old.tolist() == [2, 3, 4, 0, 0]
    assert kept.data_ptr() == old.data_ptr()


def filled(given, *changes):
    """A bucket with gradients of ones, but for the changes (place, element, value), as it leaves."""
    bucket, guard = Bucket(0, given), FiniteGradients()
    for _, p in given:
        p.grad = torch.ones_like(p)
    for place, element, value in changes:
        given[place][1].grad[element] = value
    for place in range(len(given)):
        bucket.take(place, 1.0)
    guard.on_bucket(bucket)
    return bucket


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_element_tells_of_any_bad_one(dtype, value):
    big = 2**20 // dtype.itemsize + 7  # more than one piece
    for place, bad in ((0, 4), (1, big - 1), (1, 3)):
        assert filled(named(5, big, dtype=dtype), (place, bad, value)).flat[0].isnan()


def test_finite_gradients_are_not_changed_by_the_look():
    bucket = filled(named(5, 70_000, dtype=torch.float16))  # the sum of 70,000 ones is beyond float16
    assert bucket.flat.tolist() == [1.0] * 70_005


def test_a_gradient_that_is_not_contiguous():
    p = nn.Parameter(torch.zeros(2, 3))
    bucket = Bucket(0, [("p", p)])
    p.grad = torch.arange(6.0).view(3, 2).t()
    bucket.take(0, 1.0)
    assert bucket.flat.tolist() == [0, 2, 4, 1, 3, 5]
