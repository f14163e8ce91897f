"""The rules as logic: a shard driven through random orders of events, with no process and no thread."""

import random

import pytest
import torch

from parallel_lab.parameter_server import State, formulas
from parallel_lab.parameter_server.shard import Shard
from parallel_lab.parameter_server.sharding import Layout
from parallel_lab.parameter_server.wire import PUSH, Header, open_reply
from parallel_lab.runtime import Link
from parallel_lab.synchronization import Asynchronous, Mixed, Partial, Stale, Synchronous

LAYOUT = Layout(("w",), ((1,),), "torch.float64", 1)


def shard(rule, workers):
    make = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    return Shard(LAYOUT, 0, torch.zeros(1, dtype=torch.float64), make, rule, set(range(workers)))


class Drive:
    """Workers that pull, compute and push in an order that `chance` picks among those that the rule allows."""

    def __init__(self, rule, workers, steps, chance=None):
        self.shard, self.steps, self.chance = shard(rule, workers), steps, chance
        self.read: dict[int, int] = {}  # the version of each worker that computes
        self.leads: list[int] = []

    @property
    def state(self):
        return self.shard.state

    def allowed(self):
        idle = [w for w in self.state.live if w not in self.read]
        return sorted([w for w in idle if self.shard.rule.may_pull(self.state, w)] + list(self.read))

    def act(self, worker):
        if worker in self.read:
            header = Header(PUSH, 0, self.state.clocks[worker], self.read.pop(worker), samples=1)
            self.shard.push(worker, header, torch.ones(1, dtype=torch.float64))
        elif self.state.clocks[worker] == self.steps:
            self.shard.leave(worker)
        else:
            assert self.shard.rule.may_pull(self.state, worker), f"worker {worker} has to wait"
            with self.shard.pull(worker) as reply:
                self.read[worker], _ = open_reply(reply, torch.float64)[0].tolist()
            self.leads.append(self.state.clocks[worker] - self.state.slowest())

    def run(self):
        while self.state.live:
            choices = self.allowed()
            assert choices, f"nobody can go on: {self.state}"
            self.act(self.chance.choice(choices))
        return self

    def staleness(self):
        return [push.staleness for push in self.shard.pushes if not push.dropped]


RULES = [Synchronous(), Asynchronous(), Stale(0), Stale(2), Partial(1), Partial(2), Mixed(5)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("seed", range(20))
def test_every_order_ends_and_each_push_is_used_or_counted(rule, seed):
    workers, steps = 2 + seed % 3, 6
    drive = Drive(rule, workers, steps, random.Random(seed)).run()
    assert len(drive.shard.pushes) == workers * steps
    assert drive.state.version == len(drive.shard.versions) == -round(drive.shard.parameter.item())
    if not isinstance(rule, Partial):
        assert len(drive.staleness()) == workers * steps
    if isinstance(rule, Synchronous | Partial):
        assert set(drive.staleness()) == {0}
    if isinstance(rule, Synchronous):
        assert drive.state.version == steps


def bounded(rule, seed, workers=3):
    drive = Drive(rule, workers, 12, random.Random(seed)).run()
    assert max(drive.leads) <= rule.bound, "a worker started too far ahead of the slowest"
    assert max(drive.staleness()) <= rule.staleness_bound(workers)


class Boundless(Stale):
    """Says it has a bound and lets everybody through."""

    def may_pull(self, state, worker):
        return True


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_stale_synchronous_never_lets_a_worker_run_further_ahead(bound):
    for seed in range(30):
        bounded(Stale(bound), seed)


def test_a_server_that_ignores_the_bound_is_found_out():
    for check in (0, 1):
        with pytest.raises(AssertionError, match="too far ahead"):
            for seed in range(30):
                bounded(Boundless(check), seed)


@pytest.mark.parametrize("bound", [0, 1, 4])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_bound_on_staleness_is_reached(bound, workers):
    drive = Drive(Stale(bound), workers, 100)
    for _ in range(2 * bound):
        drive.act(0)  # worker 0 makes `bound` steps
    drive.act(0)  # and starts another
    assert drive.read == {0: bound}
    for _ in range(2 * bound + 1):
        for other in range(1, workers):
            drive.act(other), drive.act(other)
    assert drive.allowed() == [0], "nobody else may start another step"
    drive.act(0)
    assert drive.staleness()[-1] == drive.shard.rule.staleness_bound(workers) == (workers - 1) * (2 * bound + 1)


def test_the_dead_do_not_hold_up_the_bound():
    drive = Drive(Stale(0), 2, 100)
    drive.act(0), drive.act(0)
    assert drive.allowed() == [1]
    drive.shard.leave(1)
    assert drive.allowed() == [0]


def test_synchronous_waits_for_all_the_living_and_averages():
    drive = Drive(Synchronous(), 3, 100)
    for worker in (0, 1, 2):
        drive.act(worker)
    drive.act(2), drive.act(0)
    assert drive.state.version == 0 and drive.allowed() == [1]
    drive.shard.leave(1)  # it dies with its gradient: two remain, and both have pushed
    del drive.read[1]
    assert drive.state.version == 1 and drive.allowed() == [0, 2]
    assert drive.shard.parameter.item() == -1.0


def test_a_mean_counts_samples():
    one = shard(Synchronous(), 2)
    one.push(0, Header(PUSH, 0, 0, 0, samples=3), torch.tensor([1.0], dtype=torch.float64))
    one.push(1, Header(PUSH, 0, 0, 0, samples=1), torch.tensor([5.0], dtype=torch.float64))
    assert one.parameter.item() == -2.0


def test_partial_takes_the_first_and_drops_the_late():
    drive = Drive(Partial(2), 3, 100)
    for worker in (0, 1, 2):
        drive.act(worker)
    drive.act(2)
    assert drive.state.version == 0 and 2 not in drive.allowed()
    drive.act(0)
    assert drive.state.version == 1
    drive.act(1)
    assert [push.dropped for push in drive.shard.pushes] == [False, False, True]
    assert drive.shard.pushes[-1].staleness == 1 and drive.state.version == 1 and 1 in drive.allowed()


def test_partial_waits_for_no_more_than_live():
    drive = Drive(Partial(3), 3, 100)
    drive.shard.leave(2)
    drive.act(0), drive.act(1), drive.act(1), drive.act(0)
    assert drive.state.version == 1


def test_mixed_switches():
    drive = Drive(Mixed(2), 2, 100)
    drive.act(0), drive.act(0), drive.act(0), drive.act(1), drive.act(0)
    assert drive.state.version == 2
    drive.act(0), drive.act(0)  # computed from version 2: held
    assert drive.state.version == 2 and drive.allowed() == [1]
    drive.act(1)  # computed from version 1: used at once, beside the one that is held
    assert drive.state.version == 3 and drive.state.held == [0] and drive.allowed() == [1]
    drive.act(1), drive.act(1)  # from here on an update takes both
    assert drive.state.version == 4 and drive.allowed() == [0, 1]
    assert [(push.worker, push.staleness) for push in drive.shard.pushes] == [(0, 0), (0, 0), (1, 1), (0, 1), (1, 0)]


@pytest.mark.parametrize("rule", [Stale, Partial, Mixed])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)])
def test_numbers_that_make_no_sense(rule, value, error):
    with pytest.raises(error, match="expected"):
        rule(value)


def test_more_pushes_than_workers():
    with pytest.raises(ValueError, match="waits for 4 pushes and there are 3 workers"):
        Partial(4).check(3, 1)


def test_a_state_without_workers():
    assert State(set()).slowest() == 0 and not State(set()).all_held()


def test_crossover():
    link = Link(0.0, 1e8)
    assert formulas.crossover(8, 10**8, link, within=1.0) is None
    assert formulas.crossover(8, 10**8, link, within=8 / 7 + 1e-3) == 8
    assert formulas.crossover(8, 10**8, link, within=1.8) == 4
    one, ring = formulas.step_seconds(8, 1, 10**8, link), formulas.ring_seconds(8, 10**8, link)
    assert one / ring == pytest.approx(9 * 8 / 14, rel=1e-3)


def test_a_spare_does_not_take_the_unheard_for_slow(tmp_path):
    before = shard(Stale(0), 2)
    before.folder = tmp_path
    before.save()
    spare = shard(Stale(0), 2)
    spare.folder = tmp_path
    spare.restore()
    spare.told(0, 7)
    assert spare.rule.may_pull(spare.state, 0)
    spare.told(1, 6)
    assert not spare.rule.may_pull(spare.state, 0) and spare.rule.may_pull(spare.state, 1)
