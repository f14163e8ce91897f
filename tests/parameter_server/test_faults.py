"""Workers and servers that die, leave or raise; Stop; a hang; gradients that are not finite."""

import re
import time

import pytest
import torch
import torch.distributed as dist
from small import LOSS, assert_weights, batches, learn, mlp

from parallel_lab import Deadlock, Kill, RankFailed, launch
from parallel_lab import parameter_server as ps
from parallel_lab.synchronization import Asynchronous, Mixed, Partial, Stale, Synchronous


def train(ranks, rule=None, data=None, faults=(), may_fail=(), timeout=30, **options):
    def fn():
        return learn(rule or Synchronous(), data or batches(), **options)

    return launch(fn, ranks=ranks, timeout=timeout, faults=faults, may_fail=may_fail)


def fails(error, words, ranks=3, **options):
    with pytest.raises(error) as raised:
        train(ranks, **options)
    assert re.search(words, raised.value.report), raised.value.report
    return raised.value


def one_victim_each(cases, survivors):
    """Trains with the options of each case on the first `survivors` ranks and one more, which is killed.

    `cases` are pairs: the options, and before which of its sends the last worker dies. All run in one launch.
    """
    faults = [Kill(rank=survivors + i, kind="send", nth=nth) for i, (_, nth) in enumerate(cases)]

    def fn():
        groups = [dist.new_group([*range(survivors), survivors + i]) for i in range(len(cases))]
        mine = [
            (group, options)
            for group, (options, _) in zip(groups, cases, strict=True)
            if isinstance(group, dist.ProcessGroup)
        ]
        return [learn(data=batches(), group=group, **options) for group, options in mine]

    victims = [fault.rank for fault in faults]
    run = launch(fn, ranks=survivors + len(cases), timeout=60, faults=faults, may_fail=victims)
    assert all("SIGKILL" in run.failures[victim] and run[victim] is None for victim in victims)
    return [[run[rank][i] for rank in range(survivors)] for i in range(len(cases))]


def test_a_worker_that_dies_stops_nobody():
    # Two sends a step, an ask and a push: it dies at its third push.
    rules = [Synchronous(), Asynchronous(), Stale(1), Partial(3), Mixed(3)]
    for server, one, two in one_victim_each([({"rule": rule}, 5) for rule in rules], survivors=3):
        assert len(one.losses) == len(two.losses) == 8
        assert_weights(two.weights, one.weights, atol=0)
        assert [sum(push.worker == worker for push in server.updates) for worker in range(3)] == [8, 8, 2]


def test_a_worker_that_dies_between_its_messages_to_two_servers():
    cases = [({"rule": Synchronous(), "servers": 2}, nth) for nth in (5, 6, 7)]
    for first, second, one, two in one_victim_each(cases, survivors=4):
        assert first.version == second.version == len(one.losses) == len(two.losses) == 8


def test_all_workers_die_and_the_server_returns():
    faults = [Kill(rank=1, kind="send", nth=3), Kill(rank=2, kind="send", nth=3)]
    run = train(3, faults=faults, may_fail=[1, 2])
    assert run[0].version >= 1 and run[1] is None and run[2] is None


def test_a_worker_that_raises_leaves_and_stops_nobody():
    def loss(outputs, targets):
        if dist.get_rank() == 2:
            raise ArithmeticError("broken")
        return LOSS(outputs, targets)

    run = train(4, loss=loss, may_fail=[2])
    assert "ArithmeticError" in run.failures[2]
    assert len(run[1].losses) == len(run[3].losses) == 8
    assert fails(RankFailed, "ArithmeticError: broken", loss=loss, ranks=4).rank == 2


def test_a_worker_may_leave_at_any_moment_and_live_on():
    def fn():
        if dist.get_rank() == 0:
            return ps.serve(mlp(), torch.optim.SGD, Synchronous(), lr=0.1).version
        worker = ps.Worker(mlp())
        for _ in range(3 * worker.index):  # worker 0 leaves without a pull, worker 1 after a push
            worker.pull()
            worker.push()
        if worker.index == 2:
            worker.pull()
        worker.leave()

    assert launch(fn, ranks=4, timeout=30)[0] == 6


def test_workers_that_run_out_of_batches_are_not_waited_for():
    run = train(3, data=lambda worker: batches(2 + 3 * worker))
    assert [len(worker.losses) for worker in run.results[1:]] == [2, 5]
    assert run[0].version == 5
    assert_weights(run[2].weights, run[1].weights, atol=0)


def test_a_server_dies():
    kill = [Kill(rank=0, kind="send", nth=5)]
    assert fails(RankFailed, "rank 0 was killed by SIGKILL", faults=kill).rank == 0
    fails(RankFailed, "server rank 0 of the group is gone, and with it shard 0", faults=kill, may_fail=[0])


class Broken(torch.optim.SGD):
    """An optimizer that raises at its second step."""

    calls = 0

    def step(self, closure=None):
        self.calls += 1
        if self.calls == 2:
            raise ArithmeticError("no second step")
        return super().step(closure)


def test_an_optimizer_that_raises_on_the_server_is_told_at_once():
    assert fails(RankFailed, "ArithmeticError: no second step", optimizer=Broken, ranks=4).rank == 0


def test_stop_ends_everything(stopped):
    with stopped(ranks=2) as begun:  # the two workers; the server waits for them

        def loss(outputs, targets):
            begun()
            time.sleep(60)

        train(3, loss=loss, timeout=60)
    assert launch(dist.get_rank, ranks=2).results == [0, 1]


def test_a_hang_says_who_is_busy():
    def loss(outputs, targets):
        while dist.get_rank() == 2:
            time.sleep(0.01)
        return LOSS(outputs, targets)

    error = fails(Deadlock, r"rank 2 is busy at test_faults.py, line \d+: `(while|time)", ranks=3, loss=loss, timeout=3)
    assert "rank 1 waits in recv(from rank 0)" in error.report


def test_a_gradient_that_is_not_finite_is_refused_before_it_is_sent():
    def loss(outputs, targets):
        return LOSS(outputs, targets) * (float("nan") if dist.get_rank() == 2 else 1.0)

    error = fails(RankFailed, "worker 1, step 0: the gradient of 0.weight is NaN or infinite", loss=loss, ranks=3)
    assert (error.rank, error.cause) == (2, "ValueError")
    run = train(3, loss=loss, may_fail=[2])
    assert all(push.worker == 0 for push in run[0].updates) and len(run[0].updates) == 8
    assert run[0].parameters.isfinite().all()


def test_gradients_that_are_replaced_missing_or_large():
    def fn():
        two = torch.nn.Linear(4, 1).requires_grad_(True)
        torch.nn.init.zeros_(two.weight), torch.nn.init.ones_(two.bias)
        if dist.get_rank() == 0:
            return ps.serve(two, torch.optim.SGD, Synchronous(), lr=1e-38)
        worker = ps.Worker(two)
        worker.pull()
        two.weight.grad, two.bias.grad = torch.full((1, 4), 3e38), None  # their sum overflows, and none is infinite
        worker.push()
        worker.finish()
        return two.weight.detach().clone(), two.bias.item()

    weight, bias = launch(fn, ranks=2, timeout=30)[1]
    torch.testing.assert_close(weight, torch.full((1, 4), -3.0))
    assert bias == 1.0
