"""Shares, a queue and stealing on real ranks: every item once, and the gradient of one process whoever did what."""

from functools import partial
from itertools import chain, pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parallel_lab import compat, launch
from parallel_lab.model import reference
from parallel_lab.model.gpt import loss as cross_entropy
from parallel_lab.systems.balance import (
    Counters,
    Deques,
    Device,
    dealt,
    delays,
    measure,
    proportional,
    queued,
    shared,
    shared_gradient,
    stolen,
    work_queue,
)

pytestmark = pytest.mark.usefixtures("by_value")
SIZES = (1, 4, 2, 0, 3, 5, 1, 2, 4, 1, 1)  # samples of each microbatch; one has none


def model():
    """With a buffer, a frozen and a tied parameter, in float64."""
    net = reference.build((6, 5, 5, 4), seed=3, dtype=torch.float64)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    linears[1].bias = linears[0].bias  # tied
    linears[0].weight.requires_grad_(False)
    net.register_buffer("steps", torch.zeros(2))
    return net


def batch(sizes=SIZES):
    dice = torch.Generator().manual_seed(7)
    x, y = torch.randn(sum(sizes), 6, generator=dice), torch.randint(4, (sum(sizes),), generator=dice)
    return list(zip(x.double().split(sizes), y.split(sizes), strict=True))


def whole():
    """The gradient of one process, all parameters in one vector."""
    net = model()
    x, y = (torch.cat(parts) for parts in zip(*batch(), strict=True))
    cross_entropy(net(x), y).backward()
    return flat(net)


def flat(net):
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def ways(n):
    """Each way at `n` ranks; shares are far from equal, and one rank of three has nothing."""
    items, speeds = len(SIZES), [3.0, 1.0, 2.0, 0.5][:n]
    return {
        "shared": shared(proportional(items, speeds)),
        "dealt": dealt([[], *([[1, 3, 5, 7, 9], [0, 2, 4, 6, 8, 10]] if n > 2 else [list(range(items))]), []][:n]),
        "queue": queued(),
        "guided": queued(work_queue.guided),
        "pieces": queued(work_queue.fixed(3)),
        "stolen": stolen([items, 0, 0, 0][:n]),
    }


def of_each_way(worlds):
    """At each world size, as a sub-group: by way the items of this rank, and its gradient."""
    found = {}
    groups = [dist.new_group(list(range(n))) for n in worlds]
    for n, group in zip(worlds, groups, strict=True):
        if dist.get_rank() >= n:
            continue
        for name, way in ways(n).items():
            if name == "dealt" and n == 1:
                continue
            net = model()
            with Counters(group=group) as counters:
                done = shared_gradient(net, batch(), way(len(SIZES), counters), group=group)
            found[n, name] = done.items, done.weight, flat(net)
    return found


def test_every_way_gives_the_gradient_of_one_process_at_1_to_4_ranks():
    run, expected = launch(of_each_way, (1, 2, 3, 4), ranks=4), whole()
    for n in (1, 2, 3, 4):
        for name in [each for each in ways(n) if (n, each) in run[0]]:
            parts = [run[rank][n, name] for rank in range(n)]
            assert sorted(item for items, *_ in parts for item in items) == list(range(len(SIZES))), (n, name)
            assert sum(weight for _, weight, _ in parts) == sum(SIZES)
            for _, _, gradient in parts:
                torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_the_mean_of_means_is_another_gradient():
    """What DDP does with unlike shares."""

    def fn():
        net, parts = model(), batch()
        mine = parts[:8] if dist.get_rank() else parts[8:]
        x, y = (torch.cat(each) for each in zip(*mine, strict=True))
        cross_entropy(net(x), y).backward()
        gradient = flat(net)
        dist.all_reduce(gradient)
        return gradient / 2

    assert not torch.allclose(launch(fn, ranks=2)[0], whole(), rtol=0.05)


def test_a_batch_without_samples_leaves_zeros():
    def fn():
        net = model()
        done = shared_gradient(net, batch((0, 0)), [dist.get_rank()])
        return done.weight, flat(net)

    for weight, gradient in launch(fn, ranks=2).results:
        assert weight == 0 and not gradient.any()


UNIT_S = (0.001, 0.001, 0.001, 0.004)


@pytest.mark.parametrize("way", [shared([5, 4, 4, 1]), dealt([[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10], [11, 12, 13]])])
def test_static_ways_on_real_ranks_with_a_slow_one(way):
    measured = measure(way, model(), batch((1,) * 14), UNIT_S, units=[2] * 14)
    assert sum(each.units for each in measured.done) == 28
    for rank, done in enumerate(measured.done):
        slept = [s for s in measured.run.trace.of(rank) if s.kind == "delay"]
        assert len(slept) == done.units == 2 * len(done.items), "Delay strikes once a unit"
        assert all(s.end_s - s.start_s >= UNIT_S[rank] for s in slept)
        assert done.busy_s >= done.units * UNIT_S[rank]
        torch.testing.assert_close(measured.gradients[rank], measured.gradients[0], rtol=0, atol=0)
    assert 0 <= measured.waiting < 1 and "waiting" in str(measured) and "busy" in str(measured)


def stands_still(way, slow):
    """Who is `slow` does not finish its first item before all others are done with what they can get."""
    with Counters() as counters:
        rank, n, items = dist.get_rank(), dist.get_world_size(), []
        mine = iter(way(14, counters))
        if rank == slow:
            items.append(next(mine))
        dist.barrier()  # the slow one has its first item; the others begin
        if rank != slow:
            items += mine
        dist.barrier()
        return items + list(mine), n


@pytest.mark.parametrize("slow", [0, 2])
def test_a_rank_that_stands_still_keeps_one_item_of_a_queue(slow):
    run = launch(partial(stands_still, queued(), slow), ranks=3)
    taken = [items for items, _ in run.results]
    assert len(taken[slow]) == 1 and sorted(chain(*taken)) == list(range(14))


def test_thieves_leave_a_rank_that_stands_still_only_what_it_works_on():
    run = launch(partial(stands_still, stolen([5, 4, 5]), 1), ranks=3)
    taken = [items for items, _ in run.results]
    assert len(taken[1]) == 1 and sorted(chain(*taken)) == list(range(14)), "shares would have left it four"


class OneProcess(Counters):
    """Counters of one rank of a group that is not there, over a store that others share."""

    def __init__(self, store, rank, ranks):
        self.store = store
        self.group = type("Group", (), {"rank": lambda _: rank, "size": lambda _: ranks})()


class Between(compat.HashStore):
    """A store in which somebody else comes between the look and the write, once."""

    def __init__(self):
        super().__init__()
        self.other = None

    def compare_set(self, key, expected, wanted):
        if other := self.other:
            self.other = None
            other()
        return super().compare_set(key, expected, wanted)


def thieves(monkeypatch, kind=Deques):
    """Rank 0 has eight items; ranks 1 and 2 see them, and want the same half at the same time."""
    monkeypatch.setattr(dist, "barrier", lambda group: None)
    store = Between()
    owner, one, two = (kind([8, 0, 0], OneProcess(store, rank, 3)) for rank in range(3))
    store.other = lambda: two._steal_from(0)
    assert one._steal_from(0) and one.asked >= 3
    return [[*iter_all(each)] for each in (one, two, owner)]


def iter_all(deque):
    while (item := deque._pop()) is not None:
        yield item


def test_two_thieves_that_want_the_same_half_do_not_both_get_it(monkeypatch):
    one, two, owner = thieves(monkeypatch)
    assert sorted(one + two + owner) == list(range(8)) and two == [4, 5, 6, 7] and one == [2, 3]


def test_without_a_name_both_thieves_believe_that_they_got_it(monkeypatch):
    class Nameless(Deques):
        def _named(self, front, back):
            return f"{front} {back}"

    one, two, _ = thieves(monkeypatch, Nameless)
    assert one == two == [4, 5, 6, 7], "the broken variant does four items twice"


def test_pieces_and_what_a_queue_would_take():
    assert work_queue.guided(10, 2) == [[0, 1, 2, 3, 4], [5, 6, 7], [8], [9]]
    assert work_queue.fixed(4)(10, 2) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    costs = [5, 1, 4, 2, 3, 3, 2, 4, 1, 5]
    for pieces in (work_queue.singles, work_queue.guided, work_queue.fixed(3)):
        cut = pieces(len(costs), 3)
        assert [item for piece in cut for item in piece] == list(range(len(costs)))
        taken, ends_s = work_queue.predicted(costs, (1.0, 1.0, 1.0), pieces)
        longest = max(sum(costs[item] for item in piece) for piece in cut)
        assert max(ends_s) <= sum(costs) / 3 + (1 - 1 / 3) * longest, "Graham's bound"
        assert sorted(chain(*taken)) == list(range(len(costs)))
    taken, ends_s = work_queue.predicted([1] * 16, (1.0, 1.0, 1.0, 2.0))
    assert list(map(len, taken)) == [5, 5, 4, 2] and ends_s == [5, 5, 4, 4]
    with pytest.raises(ValueError, match="size"):
        work_queue.fixed(0)


def test_a_device_counts_its_units():
    def fn():
        device = Device()
        took_s = device.work(3)
        return device.units, took_s, device.busy_s

    for rank, (units, took_s, busy_s) in enumerate(launch(fn, ranks=2, faults=delays((0, 0.002))).results):
        assert units == 3 and took_s == busy_s >= (0.006 if rank else 0)


def test_items_are_taken_in_order():
    taken = launch(partial(stands_still, queued(), 0), ranks=2)[1][0]
    assert all(a < b for a, b in pairwise(taken))
