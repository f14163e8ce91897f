"""Workers and servers that die, leave or raise; Stop; a hang."""

import re
import time

import pytest
import torch
import torch.distributed as dist
from small import LOSS, batches, mlp

from parallel_lab import Deadlock, Kill, RankFailed, launch
from parallel_lab import parameter_server as ps
from parallel_lab import synchronization as sync


def train(ranks, make=mlp, steps=8, loss=LOSS, lr=0.1, data=batches, faults=(), may_fail=(), timeout=30, **options):
    def fn():
        given = data if options.get("own") else data(steps)
        settings = {name: value for name, value in options.items() if name != "own"}
        return ps.train(make(), given, torch.optim.SGD, loss=loss, lr=lr, **settings)

    return launch(fn, ranks=ranks, timeout=timeout, faults=faults, may_fail=may_fail)


def fails(error, words, ranks=3, **options):
    with pytest.raises(error) as raised:
        train(ranks, **options)
    assert re.search(words, raised.value.report), raised.value.report
    return raised.value


RULES = [sync.Synchronous(), sync.Asynchronous(), sync.Stale(1), sync.Partial(3), sync.Mixed(3)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_worker_that_dies_stops_nobody(rule):
    faults = [Kill(rank=2, kind="send", nth=7)]  # three sends a step: the request of its third push
    run = train(4, consistency=rule, faults=faults, may_fail=[2])
    assert "SIGKILL" in run.failures[2] and run[2] is None
    for rank in (1, 3):
        assert len(run[rank].losses) == 8
        assert all(torch.equal(run[rank].weights[name], run[1].weights[name]) for name in run[1].weights)
    counts = [sum(push.worker == worker for push in run[0].pushes) for worker in range(3)]
    assert counts == [8, 2, 8]


@pytest.mark.parametrize("nth", [6, 7, 8])
def test_a_worker_that_dies_between_its_messages_to_two_servers(nth):
    run = train(5, servers=2, faults=[Kill(rank=3, kind="send", nth=nth)], may_fail=[3])
    assert [run[r].versions[-1] for r in (0, 1)] == [8, 8]
    assert len(run[2].losses) == len(run[4].losses) == 8


def test_all_workers_die_and_the_server_returns():
    faults = [Kill(rank=1, kind="send", nth=5), Kill(rank=2, kind="send", nth=5)]
    run = train(3, faults=faults, may_fail=[1, 2])
    assert run[0].role == "server" and run[1] is None and run[2] is None


def test_a_worker_that_raises_leaves_and_stops_nobody():
    def loss(outputs, targets):
        if dist.get_rank() == 2:
            raise ArithmeticError("broken")
        return LOSS(outputs, targets)

    run = train(4, loss=loss, may_fail=[2])
    assert "ArithmeticError" in run.failures[2]
    assert len(run[1].losses) == len(run[3].losses) == 8
    error = fails(RankFailed, "ArithmeticError: broken", loss=loss, ranks=4)
    assert error.rank == 2


def test_workers_that_run_out_of_batches_are_not_waited_for():
    def own(worker, workers):
        return batches(2 + 3 * worker)

    run = train(3, data=own, own=True)
    assert [len(record.losses) for record in run.results] == [0, 2, 5]
    assert run[0].versions == [1, 2, 3, 4, 5]
    assert all(torch.equal(run[1].weights[name], run[2].weights[name]) for name in run[1].weights)


def assert_restored(spare, workers, every, shard):
    """The spare went on from a multiple of `every`, and counts what the workers had seen beyond it."""
    assert spare.role == "spare" and spare.taken == [shard]
    drops = [next(i for i in range(1, 30) if w.versions[i] <= w.versions[i - 1]) for w in workers]
    restored = [w.versions[i] for w, i in zip(workers, drops, strict=True)]
    seen = [w.versions[i - 1] for w, i in zip(workers, drops, strict=True)]
    assert min(restored) % every == 0 and spare.versions[0] == min(restored) + 1
    assert spare.lost == max(seen) - min(restored)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_spare_takes_over_the_shard_of_a_dead_server(tmp_path, rule):
    # Each worker reads once a step, so the 17th answer is in the sixth step.
    faults = [Kill(rank=0, kind="send", nth=16)]
    options = {"servers": 2, "spares": 1, "snapshot": tmp_path, "every": 3, "consistency": rule}
    run = train(5, steps=12, faults=faults, may_fail=[0], **options)
    assert "SIGKILL" in run.failures[0]
    workers = run.results[2:]
    assert [len(worker.losses) for worker in workers] == [12, 12, 12]
    if isinstance(rule, sync.Synchronous):
        assert_restored(run[1], workers, 3, shard=0)
        assert run[1].lost > 0
    assert all(torch.equal(w.weights[name], run[1].weights[name]) for w in workers for name in w.weights)


def test_a_worker_that_has_finished_notices_that_a_server_dies(tmp_path):
    def own(worker, workers):
        return batches(2 if worker == 0 else 8)

    # Worker 0 waits for the end at both servers; the spare of the second has to hear of it before it goes on.
    options = {"servers": 3, "spares": 1, "snapshot": tmp_path, "every": 1}
    run = train(6, data=own, own=True, faults=[Kill(rank=1, kind="send", nth=12)], may_fail=[1], **options)
    assert run[2].taken == [1]
    assert [len(record.losses) for record in run.results[3:]] == [2, 8, 8]
    assert all(torch.equal(w.weights[name], run[5].weights[name]) for w in run.results[3:] for name in w.weights)


def test_two_servers_die_and_one_spare_holds_both_shards(tmp_path):
    faults = [Kill(rank=0, kind="send", nth=9), Kill(rank=1, kind="send", nth=14)]
    options = {"servers": 3, "spares": 1, "snapshot": tmp_path, "every": 2}
    run = train(5, steps=10, faults=faults, may_fail=[0, 1], **options)
    assert sorted(run[2].taken) == [0, 1]
    flat = torch.cat([piece.reshape(-1) for _, piece in sorted(run[2].weights.items())])
    assert len(flat) == sum(p.numel() for p in mlp().parameters())
    assert len(run[3].losses) == len(run[4].losses) == 10


def test_a_spare_that_dies_is_followed_by_the_next(tmp_path):
    faults = [Kill(rank=0, kind="send", nth=9), Kill(rank=1, kind="send", nth=4)]
    options = {"servers": 3, "spares": 2, "snapshot": tmp_path, "every": 1}
    run = train(5, steps=10, faults=faults, may_fail=[0, 1], **options)
    assert run[2].role == "spare" and run[2].taken == [0]
    assert len(run[3].losses) == len(run[4].losses) == 10


def test_a_server_dies_and_there_is_no_spare():
    error = fails(RankFailed, "rank 0 was killed by SIGKILL", faults=[Kill(rank=0, kind="send", nth=5)])
    assert error.rank == 0
    words = "server rank 0 of the group is gone, and no spare is left to take over shard 0"
    fails(RankFailed, words, faults=[Kill(rank=0, kind="send", nth=5)], may_fail=[0])


def test_a_run_goes_on_from_its_snapshots(tmp_path):
    halves = [train(3, steps=4, snapshot=tmp_path, every=4, servers=2), None]
    halves[1] = train(3, data=lambda steps: batches(8)[4:], snapshot=tmp_path, resume=True, servers=2)
    whole = train(3, servers=2)
    assert halves[1][0].versions == [5, 6, 7, 8]
    for name, tensor in whole[2].weights.items():
        assert torch.equal(halves[1][2].weights[name], tensor)


def test_a_snapshot_of_another_number_of_servers(tmp_path):
    train(4, snapshot=tmp_path, servers=2)
    error = fails(RankFailed, "of another layout: it holds 2 shards, not 1", snapshot=tmp_path, resume=True)
    assert error.cause == "ValueError" and error.rank == 0


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
        broken = dist.get_rank() == 2
        return LOSS(outputs, targets) * (float("nan") if broken else 1.0)

    words = r"worker 1, step 0: \d+ of 35 numbers in the gradient of 0.weight are not finite\. Nothing was pushed"
    error = fails(RankFailed, words, loss=loss, ranks=3)
    assert (error.rank, error.cause) == (2, "ValueError")
    run = train(3, loss=loss, may_fail=[2])
    assert all(push.worker == 0 for push in run[0].pushes) and len(run[0].pushes) == 8
    assert all(tensor.isfinite().all() for tensor in run[0].weights.values())


def test_a_large_gradient_whose_sum_overflows_is_none_that_is_not_finite():
    def fn():
        one = torch.nn.Linear(4, 1, bias=False)
        if dist.get_rank() == 0:
            return ps.serve(one, torch.optim.SGD, lr=1e-38).weights["weight"]
        worker = ps.Worker(one)
        worker.pull()
        one.weight.grad = torch.full((1, 4), 3e38)
        worker.push()
        return worker.finish()

    assert launch(fn, ranks=2, timeout=30)[1] == 1


def test_a_worker_that_never_pulls_is_told():
    def fn():
        if dist.get_rank() == 0:
            return ps.serve(mlp(), torch.optim.SGD, sync.Asynchronous(), lr=0.1)
        mine = mlp()
        worker = ps.Worker(mine)
        worker.pull()
        for inputs, targets in batches():
            LOSS(mine(inputs), targets).backward()
            worker.push()

    with pytest.raises(RankFailed, match=r"push\(\) without a pull\(\) before it") as raised:
        launch(fn, ranks=2, timeout=30)
    assert raised.value.rank == 1
