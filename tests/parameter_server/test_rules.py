"""The rules as logic: a shard driven through random orders of events, with no process and no thread."""

import random

import pytest
import torch

from parallel_lab.network import Link
from parallel_lab.parameter_server import State, formulas
from parallel_lab.parameter_server.server import Shard
from parallel_lab.parameter_server.wire import Header, Message
from parallel_lab.synchronization import Asynchronous, Mixed, Partial, Stale, Synchronous


def shard(rule, workers, optimizer=torch.optim.SGD, **settings):
    make = lambda one: optimizer(one, **{"lr": 1.0} | settings)  # noqa: E731
    return Shard(0, torch.zeros(1, dtype=torch.float64), make, rule, workers)


def gradient(step, version, weight=1.0, value=1.0):
    message = Message(1, torch.float64)
    message.header = Header(step=step, version=version, weight=weight)
    message.vector.fill_(value)
    return message


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
            self.shard.push(worker, gradient(self.state.clocks[worker], self.read.pop(worker)))
        elif self.state.clocks[worker] == self.steps:
            self.shard.leave(worker)
        else:
            assert self.shard.rule.may_pull(self.state, worker), f"worker {worker} has to wait"
            self.read[worker] = int(self.shard.answer.header.version)
            self.leads.append(self.state.clocks[worker] - self.state.slowest())

    def run(self):
        while self.state.live:
            choices = self.allowed()
            assert choices, f"nobody can go on: {self.state}"
            self.act(self.chance.choice(choices))
        return self

    def staleness(self):
        return [push.staleness for push in self.shard.updates if not push.dropped]


RULES = [Synchronous(), Asynchronous(), Stale(0), Stale(2), Partial(1), Partial(2), Mixed(5)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_order_ends_and_each_push_is_used_or_counted(rule):
    for seed in range(20):
        workers, steps = 2 + seed % 3, 6
        drive = Drive(rule, workers, steps, random.Random(seed)).run()
        assert len(drive.shard.updates) == workers * steps
        assert drive.state.version == -round(drive.shard.w.item())
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
    if bound < 3:
        with pytest.raises(AssertionError, match="too far ahead"):
            for seed in range(30):
                bounded(Boundless(bound), seed)


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
    assert drive.shard.w.item() == -1.0


@pytest.mark.parametrize(
    ("weights", "values", "mean"),
    [((3, 1), (1.0, 5.0), 2.0), ((1, 0), (2.0, 0.0), 2.0), ((0, 0), (0.0, 0.0), 0.0), ((0.5, 1.5), (4.0, 0.0), 1.0)],
)
def test_a_mean_counts_samples_or_tokens(weights, values, mean):
    one = shard(Synchronous(), 2)
    for worker in (0, 1):
        one.push(worker, gradient(0, 0, weights[worker], values[worker]))
    assert one.w.item() == -mean


def test_partial_takes_the_first_and_drops_the_late():
    drive = Drive(Partial(2), 3, 100)
    for worker in (0, 1, 2):
        drive.act(worker)
    drive.act(2)
    assert drive.state.version == 0 and 2 not in drive.allowed()
    drive.act(0)
    assert drive.state.version == 1
    drive.act(1)
    assert [push.dropped for push in drive.shard.updates] == [False, False, True]
    assert drive.shard.updates[-1].staleness == 1 and drive.state.version == 1 and 1 in drive.allowed()


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
    assert [(push.worker, push.staleness) for push in drive.shard.updates] == [(0, 0), (0, 0), (1, 1), (0, 1), (1, 0)]


@pytest.mark.parametrize("rule", [Stale, Partial, Mixed])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)])
def test_numbers_that_make_no_sense(rule, value, error):
    with pytest.raises(error, match="expected"):
        rule(value)


def test_numbers_of_workers_and_servers_that_make_no_sense():
    with pytest.raises(ValueError, match="waits for 4 pushes and there are 3 workers"):
        Partial(4).check(3, 1)
    with pytest.raises(ValueError, match="servers=1"):
        Mixed(4).check(3, 2)


def test_a_state_without_workers():
    assert State(set()).slowest() == 0 and not State(set()).all_held()


def test_crossover():
    link, plain = Link(0.0, 1e8), formulas.step_seconds
    assert formulas.crossover(8, 10**8, link, 1.0, plain) is None
    assert formulas.crossover(8, 10**8, link, 8 / 7 + 1e-3, plain) == 8
    assert formulas.crossover(8, 10**8, link, 1.8, plain) == 4
    one, ring = formulas.step_seconds(8, 1, 10**8, link), formulas.ring_seconds(8, 10**8, link)
    assert one / ring == pytest.approx(9 * 8 / 14, rel=1e-3)
