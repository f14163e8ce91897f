"""Forward and backward of the conjugate pairs against the same computation in one process, in float64.

Each case computes on real ranks and, on every rank again, in one piece. Both add the same numbers in another order:
1e-12 is far above what that changes for numbers of order 1.
"""

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import gelu

from parallel_lab import launch
from parallel_lab.collectives import autograd

LENGTH = 5  # along the cut dim: no multiple of 2, 3 or 4
CLOSE = {"rtol": 0.0, "atol": 1e-12}


def number(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def world():
    n, rank = dist.get_world_size(), dist.get_rank()
    return n, rank, [number(100 + r, 3, LENGTH) for r in range(n)]  # a weight for each rank's own loss


def loss(y, weight):
    return (weight * y.sin()).sum()


def gradient(x, *values):
    return torch.autograd.grad(sum(values[1:], values[0]), x)[0]


def same(got, expected):
    torch.testing.assert_close(got, expected, **CLOSE)


def share(x, rank, n):
    return x.tensor_split(n, dim=1)[rank]


def identity_all_reduce():
    _, rank, weights = world()
    x = number(0, 3, LENGTH).requires_grad_()
    y = autograd.identity_all_reduce(x)
    same(y, x)
    same(gradient(x, loss(y, weights[rank])), gradient(x, *(loss(x, w) for w in weights)))


def all_reduce_identity():
    n, rank, weights = world()
    xs = [number(r, 3, LENGTH).requires_grad_() for r in range(n)]
    y = autograd.all_reduce_identity(xs[rank])
    same(y, sum(xs))
    same(gradient(xs[rank], loss(y, weights[0])), gradient(xs[rank], loss(sum(xs), weights[0])))


def all_gather_reduce_scatter():
    n, rank, weights = world()
    whole = number(0, 3, LENGTH).requires_grad_()
    x = share(whole, rank, n).detach().requires_grad_()
    y = autograd.all_gather_reduce_scatter(x, dim=1, length=LENGTH)
    same(y, whole)
    expected = gradient(whole, *(loss(whole, w) for w in weights))
    same(gradient(x, loss(y, weights[rank])), share(expected, rank, n))


def reduce_scatter_all_gather():
    n, rank, weights = world()
    xs = [number(r, 3, LENGTH).requires_grad_() for r in range(n)]
    y = autograd.reduce_scatter_all_gather(xs[rank], dim=1)
    same(y, share(sum(xs), rank, n))
    parts = [loss(share(sum(xs), r, n), share(w, r, n)) for r, w in enumerate(weights)]
    same(gradient(xs[rank], loss(y, share(weights[rank], rank, n))), gradient(xs[rank], *parts))


def split_all_gather():
    n, rank, weights = world()
    x = number(0, 3, LENGTH).requires_grad_()
    y = autograd.split_all_gather(x, dim=1)
    same(y, share(x, rank, n))
    parts = [loss(share(x, r, n), share(w, r, n)) for r, w in enumerate(weights)]
    same(gradient(x, loss(y, share(weights[rank], rank, n))), gradient(x, *parts))


def all_gather_split():
    n, rank, weights = world()
    whole = number(0, 3, LENGTH).requires_grad_()
    x = share(whole, rank, n).detach().requires_grad_()
    y = autograd.all_gather_split(x, dim=1, length=LENGTH)
    same(y, whole)
    same(gradient(x, loss(y, weights[0])), share(gradient(whole, loss(whole, weights[0])), rank, n))


def exchange():
    """Rank r gives r + p rows to rank p, and backward takes them back; nobody gives anything to rank 0."""
    n, rank, _ = world()
    given = [[0 if p == 0 else r + p for p in range(n)] for r in range(n)]
    xs = [number(r, sum(given[r]), 3).requires_grad_() for r in range(n)]
    parts = [torch.cat([xs[r].split(given[r])[p] for r in range(n)]) for p in range(n)]
    y = autograd.exchange(xs[rank], given[rank], [given[r][rank] for r in range(n)])
    same(y, parts[rank])
    total = sum(((p + 1) * part.sin().sum() for p, part in enumerate(parts)), torch.zeros(()))
    same(gradient(xs[rank], (rank + 1) * y.sin().sum()), gradient(xs[rank], total))


def all_pairs():
    identity_all_reduce()
    all_reduce_identity()
    all_gather_reduce_scatter()
    reduce_scatter_all_gather()
    split_all_gather()
    all_gather_split()
    exchange()


def two_layers(sequence_parallel):
    """Megatron's MLP: columns of the first weight, rows of the second; sequence parallelism shards x and y as well."""
    n, rank, _ = world()
    x, first, second = number(1, 7, 4), number(2, 4, LENGTH), number(3, LENGTH, 4)
    whole = [t.requires_grad_() for t in (x, first, second)]
    expected_y = gelu(x @ first) @ second
    expected = torch.autograd.grad(expected_y.sin().sum(), whole)
    columns, rows = first.tensor_split(n, 1)[rank].detach(), second.tensor_split(n, 0)[rank].detach()
    if sequence_parallel:
        x = x.tensor_split(n, 0)[rank]
    x, columns, rows = (t.detach().clone().requires_grad_() for t in (x, columns, rows))
    inside = autograd.all_gather_reduce_scatter(x, length=7) if sequence_parallel else autograd.identity_all_reduce(x)
    y = gelu(inside @ columns) @ rows
    y = autograd.reduce_scatter_all_gather(y) if sequence_parallel else autograd.all_reduce_identity(y)
    grads = torch.autograd.grad(y.sin().sum(), (x, columns, rows))
    same(y, expected_y.tensor_split(n, 0)[rank] if sequence_parallel else expected_y)
    same(grads[0], expected[0].tensor_split(n, 0)[rank] if sequence_parallel else expected[0])
    same(grads[1], expected[1].tensor_split(n, 1)[rank])
    same(grads[2], expected[2].tensor_split(n, 0)[rank])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_each_pair_and_an_mlp_made_of_them_are_the_computation_of_one_process(n):
    launch(lambda: (all_pairs(), two_layers(False), two_layers(True)), ranks=n)


def in_the_group_of_my_parity():
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    mine = groups[dist.get_rank() % 2]
    x = torch.full((2,), float(dist.get_rank()), requires_grad=True)
    y = autograd.identity_all_reduce(autograd.all_reduce_identity(x, mine), mine)
    (dist.get_rank() * y).sum().backward()
    return y.tolist(), x.grad.tolist()


def test_the_group_is_the_one_passed_in():
    results = launch(in_the_group_of_my_parity, ranks=4).results
    assert [y for y, _ in results] == [[2.0] * 2, [4.0] * 2] * 2
    assert [grad for _, grad in results] == [[2.0] * 2, [4.0] * 2] * 2


def bytes_of_one_layer(pair):
    x = torch.ones(8, 6, requires_grad=True)
    if pair == "f and g":
        y = autograd.all_reduce_identity(autograd.identity_all_reduce(x))
    else:
        y = autograd.reduce_scatter_all_gather(autograd.all_gather_reduce_scatter(x[:2]))
    y.sum().backward()


def test_sequence_parallelism_sends_the_same_bytes():
    whole_bytes, n = 8 * 6 * 4, 4
    for pair in ("f and g", "gather and scatter"):
        trace = launch(bytes_of_one_layer, pair, ranks=n).trace
        assert {trace.bytes_sent(rank) for rank in range(n)} == {4 * whole_bytes * (n - 1) // n}
