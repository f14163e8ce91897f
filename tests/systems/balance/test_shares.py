"""Shares by speed are the best whole ones; a meter measures, and samples travel to their new owners."""

import math
from itertools import pairwise, product
from statistics import fmean

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.model import reference
from parallel_lab.systems.balance import Meter, adaptive, delays, gain, moved, proportional, redistribute, shares

pytestmark = pytest.mark.usefixtures("by_value")


@pytest.mark.parametrize("speeds", [(1.0, 1.0, 0.5), (3.0, 1.0, 2.0), (1.0, 1.0, 1.0), (5.0, 0.1, 0.1), (0.7,)])
def test_no_whole_shares_are_faster(speeds):
    for total in (len(speeds), 7, 10):
        found = proportional(total, speeds)
        each = product(range(1, total + 1), repeat=len(speeds))
        best = min(shares.step_s(one, speeds) for one in each if sum(one) == total)
        assert sum(found) == total and min(found) >= 1
        assert shares.step_s(found, speeds) == pytest.approx(best, rel=1e-12), (total, found)


def test_the_gain_of_shares_by_speed():
    speeds = [1.0, 1.0, 1.0, 0.5]
    assert gain(speeds) == pytest.approx(fmean(speeds) / min(speeds)) == 1.75
    equal, fair = shares.step_s([28] * 4, speeds), shares.step_s(proportional(112, speeds), speeds)
    assert equal / fair == pytest.approx(1.75), "112 divides by 3.5"
    assert proportional(112, speeds) == [32, 32, 32, 16] and proportional(3, [1, 1, 1], least=0) == [1, 1, 1]


def test_refusals():
    with pytest.raises(ValueError, match="positive"):
        proportional(5, [1.0, 0.0])
    with pytest.raises(ValueError, match="do not give"):
        proportional(1, [1.0, 1.0])


def test_what_moves_and_when_it_pays():
    assert shares.moves([4, 4, 4], [6, 3, 3]) == [(1, 0, 4, 6), (2, 1, 8, 9)]
    assert moved([4, 4, 4], [6, 3, 3]) == 3 and moved([4, 4], [4, 4]) == 0
    assert shares.moves([6, 0, 0], [1, 2, 3]) == [(0, 1, 1, 3), (0, 2, 3, 6)]
    speeds = [2.0, 1.0, 1.0]  # samples a second
    assert shares.pays_after([4, 4, 4], [6, 3, 3], speeds, 0.5) == pytest.approx(3 * 0.5 / (4 - 3))
    assert shares.pays_after([6, 3, 3], [4, 4, 4], speeds, 0.5) == math.inf


CUTS = [([3, 2, 4, 1], [1, 4, 2, 3]), ([0, 10, 0, 0], [3, 3, 3, 1]), ([1, 2, 3, 4], [1, 2, 3, 4])]


def test_rows_travel_to_their_owners():
    """Also into a share that was empty; what is sent is what `moved` says."""

    def fn():
        rows, rank = torch.arange(10 * 3, dtype=torch.float64).view(10, 3), dist.get_rank()
        group = dist.new_group([0, 1])
        found = []
        for old, new in CUTS:
            (first, stop), (begin, end) = shares.bounds(old)[rank], shares.bounds(new)[rank]
            found.append(torch.equal(redistribute(rows[first:stop], old, new), rows[begin:end]))
        if rank < 2:
            (first, stop), (begin, end) = shares.bounds([7, 3])[rank], shares.bounds([2, 8])[rank]
            found.append(torch.equal(redistribute(rows[first:stop], [7, 3], [2, 8], group=group), rows[begin:end]))
            with pytest.raises(ValueError, match="rows"):
                redistribute(rows, [7, 3], [2, 8], group=group)
        return all(found)

    run = launch(fn, ranks=4)
    assert all(run.results)
    sent = sum(s.sent_bytes for s in run.trace.spans if s.phase == "move")
    assert sent == 3 * 8 * (sum(moved(*cut) for cut in CUTS) + moved([7, 3], [2, 8]))


def test_a_meter_cuts_anew_by_what_was_measured():
    """Seconds are given: rank 2 becomes four times slower after the first window; one slow step changes nothing."""

    def fn(ranks):
        group = dist.new_group(list(range(ranks)))
        if dist.get_rank() >= ranks:
            return None
        meter, seen = Meter(26, every=3, group=group), []
        rank = group.rank()
        for step in range(6):
            sample_s = 0.4 if rank == 2 and step >= 3 else 0.1
            noise = 9.0 if rank == 0 and step == 1 else 0.0
            changed = meter.step(sample_s * meter.shares[rank] + noise)
            seen.append((changed, list(meter.shares)))
        return seen, meter.speeds

    for ranks in (1, 3, 4):
        results = [each for each in launch(fn, ranks, ranks=4).results if each]
        seen, speeds = results[0]
        assert all(each == results[0] for each in results), "all ranks have the same cut"
        assert not any(changed for changed, _ in seen[:5]), "equal speeds in the first window, whatever one step took"
        assert speeds == pytest.approx([2.5 if rank == 2 else 10 for rank in range(ranks)])
        assert seen[-1] == (ranks > 2, proportional(26, speeds))


def test_a_meter_moves_a_share_of_real_work_away_from_a_rank_with_more_to_do():
    """Each rank notes its own time, without waiting; here it is a count, so a busy machine is no matter."""

    def fn():
        rank, data = dist.get_rank(), torch.arange(40.0).view(20, 2)
        meter = Meter(20, every=1)
        rows = data[slice(*shares.bounds(meter.shares)[rank])]
        old = meter.shares
        if meter.step((3 if rank == 1 else 1) * len(rows)):
            rows = redistribute(rows, old, meter.shares)
        gathered = [None] * 3
        dist.all_gather_object(gathered, rows)
        return meter.shares, torch.equal(torch.cat(gathered), data)

    for cut, whole in launch(fn, ranks=3).results:
        assert cut == [9, 3, 8] and whole


def trained(ranks, x, y):
    """With each number of ranks, a sub-group: the weights after seven steps, and what happened in each."""
    groups, found = [dist.new_group(list(range(n))) for n in ranks], {}
    for n, group in zip(ranks, groups, strict=True):
        if dist.get_rank() < n:
            model = reference.build((5, 6, 4), seed=1, dtype=torch.float64)
            steps = adaptive(model, (x, y), torch.optim.SGD, steps=7, every=2, lr=0.3, momentum=0.9, group=group)
            found[n] = model.state_dict(), steps
    return found


def test_training_with_cuts_that_follow_the_speeds_is_that_of_one_process():
    """On real ranks with a slow one; what the clock says decides the cuts, and no cut may change the weights."""
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(22, 5, generator=dice).double(), torch.randint(4, (22,), generator=dice)
    worlds, model = (1, 2, 3, 4), reference.build((5, 6, 4), seed=1, dtype=torch.float64)
    expected = reference.train(model, [(x, y)] * 7, torch.optim.SGD, lr=0.3, momentum=0.9).weights
    run = launch(trained, worlds, x, y, ranks=4, faults=delays((0.0005, 0.004, 0.0005, 0.001)))
    for n in worlds:
        for rank in range(n):
            weights, steps = run[rank][n]
            torch.testing.assert_close(weights, expected, rtol=1e-11, atol=1e-13)
            assert steps[0].shares == proportional(22, [1.0] * n) and all(sum(step.shares) == 22 for step in steps)
            for one, other in pairwise(steps):
                assert one.moved == moved(one.shares, other.shares)
            assert not any(step.moved for step in steps[::2]), "a cut changes after every second step"
