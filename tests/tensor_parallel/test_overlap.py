"""Overlapped products: the same numbers and bytes as gather-then-multiply, in a trace that overlaps."""

from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import linear

from parallel_lab import Link, launch
from parallel_lab.collectives.autograd import all_gather_reduce_scatter, reduce_scatter_all_gather
from parallel_lab.plan import check_plan
from parallel_lab.runtime import rank_device
from parallel_lab.simulate import AlphaBeta, simulate
from parallel_lab.tensor_parallel import overlap
from parallel_lab.trace import Trace, recorder, tag

pytestmark = pytest.mark.usefixtures("by_value")
CUTS = [(0, 8), (1, 8), (0, 7), (1, 5), (0, 3)]  # the dim that is cut, and its length; of 3, at 4 ranks one has none
TOLERANCE = 1e-12


def number(seed, *shape):
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.to(rank_device())


def whole_shape(dim, length):
    shape = [4, 4, 6]
    shape[dim] = length
    return shape


def plain(name, x, weight, dim, length, group):
    if name == "all_gather_linear":
        return linear(all_gather_reduce_scatter(x, dim, group, length), weight)
    return reduce_scatter_all_gather(linear(x, weight), dim, group)


def overlapped(name, x, weight, dim, length, group):
    extra = {"length": length} if name == "all_gather_linear" else {}
    return getattr(overlap, name)(x, weight, dim=dim, group=group, **extra)


def passes(layer, name, dim, length, group):
    """Output, both gradients, and the bytes sent."""
    n, rank = group.size(), group.rank()
    x = number(rank * (name != "all_gather_linear"), *whole_shape(dim, length))
    if name == "all_gather_linear":
        x = x.tensor_split(n, dim)[rank].clone()
    x, weight = x.requires_grad_(), number(10 + rank, 5, 6).requires_grad_()
    before = recorder().sent_bytes
    y = layer(name, x, weight, dim, length, group)
    y.backward(number(20 + rank, *y.shape))
    return y.detach(), x.grad, weight.grad, recorder().sent_bytes - before


def compared(name):
    found = []
    for n in (1, 2, 3, 4):
        group = dist.new_group(range(n))
        for dim, length in CUTS if dist.get_rank() < n else ():
            *ours, sent = passes(overlapped, name, dim, length, group)
            *theirs, expected = passes(plain, name, dim, length, group)
            apart = max(float((a - b).abs().sum()) for a, b in zip(ours, theirs, strict=True))
            found.append((n, dim, length, apart, sent, expected))
    return found


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["all_gather_linear", "linear_reduce_scatter"])
def test_is_the_plain_pair_with_the_same_bytes(name, device):
    """Forward and backward, along either dim, in parts of uneven length."""
    results = launch(compared, name, ranks=4, device=device, timeout=120).results
    assert [len(found) for found in results] == [20, 15, 10, 5]
    for n, dim, length, apart, sent, expected in (case for found in results for case in found):
        assert apart < TOLERANCE and sent == expected, (n, dim, length, apart, sent, expected)
        if length == 8 and n in (2, 4):  # the input forward and its gradient backward, or the output's
            assert sent == 2 * (n - 1) * 8 * 4 * (6 if name == "all_gather_linear" else 5) * 8 // n


def one_process():
    """A two-layer part of a block, sequence-parallel, against the same in one process."""
    n, rank = dist.get_world_size(), dist.get_rank()
    x, up, down = number(1, 6, 2, 4), number(2, 12, 4), number(3, 4, 12)
    alone = [t.clone().requires_grad_() for t in (x, up, down)]
    (linear(linear(alone[0], alone[1]).tanh(), alone[2]).sin()).sum().backward()
    mine = [x.tensor_split(n)[rank], up.tensor_split(n)[rank], down.tensor_split(n, 1)[rank]]
    mine = [t.clone().requires_grad_() for t in mine]
    h = overlap.all_gather_linear(mine[0], mine[1], length=6).tanh()
    overlap.linear_reduce_scatter(h, mine[2]).sin().sum().backward()
    expected = [
        alone[0].grad.tensor_split(n)[rank],
        alone[1].grad.tensor_split(n)[rank],
        alone[2].grad.tensor_split(n, 1)[rank],
    ]
    return max(float((a.grad - b).abs().max()) for a, b in zip(mine, expected, strict=True))


def test_a_feed_forward_of_both_is_that_of_one_process():
    assert max(launch(one_process, ranks=3).results) < TOLERANCE
    assert max(launch(one_process, ranks=4).results) < TOLERANCE


def three_layers():
    x = number(1, 8, 6)
    for layer in range(3):
        h = overlap.all_gather_linear(x, number(layer, 6, 6).requires_grad_())
        with tag(mb=layer + 1):
            x = overlap.linear_reduce_scatter(h, number(layer, 6, 6))
    x.sum().backward()
    return recorder().spans


def test_a_run_of_several_layers_is_a_plan():
    """Every message and product stands once, and a tag's microbatch is also that of the backward pass."""
    spans = tuple(span for spans in launch(three_layers, ranks=2).results for span in spans)
    check_plan(Trace(2, spans).plan())
    found = [span for span in spans if span.rank == 0]
    assert len(found) == 6 * 2 * (2 + 2)
    assert {span.mb for span in found if span.phase.startswith("backward")} == {0, 1, 2, 3}


def one_layer(layer, name):
    group, rank = dist.group.WORLD, dist.get_rank()
    x = number(rank, 8, 6).requires_grad_()
    for _ in range(2):  # the first opens connections
        dist.barrier()
        first = len(recorder().spans)
        y = layer(name, x, number(rank, 5, 6), 0, 8 * group.size() if name == "all_gather_linear" else 8, group)
        y.sum().backward()
    return recorder().spans[first:]


@pytest.mark.parametrize("name", ["all_gather_linear", "linear_reduce_scatter"])
def test_a_run_is_its_plan_and_overlaps(name):
    """Over a link of a quarter of a second, each product but one begins while a message is under way."""
    n = 3
    results = launch(one_layer, overlapped, name, ranks=n, link=Link(latency_s=0.25)).results
    trace = Trace(n, tuple(span._replace(phase=span.phase.split(".")[0]) for spans in results for span in spans))
    plans = {"forward": overlap.all_gather_plan, "backward": overlap.reduce_scatter_plan}
    if name == "linear_reduce_scatter":
        plans = {"forward": overlap.reduce_scatter_plan, "backward": overlap.all_gather_plan}
    expected = [make(n, phase=phase) for phase, make in plans.items()]
    for rank in range(n):
        row = [op for part in expected for op in part.rows[rank]]
        assert list(trace.plan().rows[rank]) == row
        spans = [span for span in trace.of(rank, "compute") if span.kind == "product"]
        assert len(spans) == 2 * n
        sent = trace.of(rank, "send")
        hidden = [one for one in spans if any(way.start_s <= one.start_s < way.end_s for way in sent)]
        assert len(hidden) == 2 * (n - 1)
        assert trace.overlap_s(rank) > 0
    check_plan(expected[0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("make", [overlap.all_gather_plan, overlap.reduce_scatter_plan])
def test_the_seconds_are_those_of_the_simulated_plan(make, n):
    """And overlap pays where the closed form says so."""
    product_s = 4.0
    for message_s, loss, overlaps in product((0.0, 0.25, 0.5, 1.0, 2.0, 8.0), (0.0, 0.3, 2.0), (True, False)):
        one = (1 + loss) * product_s / n if overlaps else product_s
        took = simulate(make(n, overlap=overlaps), AlphaBeta(message_s, float("inf"), 0, one)).duration_s
        expected = overlap.seconds(n, product_s, message_s, overlap=overlaps, loss=loss)
        assert took == pytest.approx(expected), (message_s, loss, overlaps)
        gain = overlap.seconds(n, product_s, message_s, overlap=False) - expected
        hidden = message_s <= (1 + loss) * product_s / n
        if overlaps:
            pays = (n - 1) * message_s > loss * product_s if hidden else 1 + loss < n
            assert (gain > 1e-9) == pays, (message_s, loss)


def test_refusals():
    def refused():
        said = []
        for call in (
            lambda: overlap.all_gather_linear(torch.ones(2, 3), torch.ones(4, 3), length=9),
            lambda: overlap.all_gather_linear(torch.ones(2, 3), torch.ones(4, 5)),
            lambda: overlap.linear_reduce_scatter(torch.ones(2, 3), torch.ones(4, 3), dim=1),
        ):
            with pytest.raises(ValueError) as error:
                call()
            said.append(str(error.value))
        return said

    for rank, said in enumerate(launch(refused, ranks=2).results):
        assert said[0].startswith(f"rank {rank} of 2 has 2 of 9 along dim 0; its share is {5 - rank}, as tensor_split")
        assert said[1].startswith(f"rank {rank}: x of (2, 3), weight of (4, 5), dim=0: expected x with 5 features last")
        assert "dim=1" in said[2] and "from 0 to 0" in said[2]
    with pytest.raises(ValueError, match="n=0"):
        overlap.all_gather_plan(0)
