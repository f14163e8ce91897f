"""The strategies through a server: what a slow rank costs, by the order of events, and replays of what really ran."""

import sys
from collections import Counter

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from kit import model, recorded, said, same, steps_of

from parallel_lab import Delay, RankFailed, launch
from parallel_lab.model import digit_batches, loss
from parallel_lab.model import train as one_process
from parallel_lab.plan import check_plan
from parallel_lab.runtime import make_mesh
from parallel_lab.synchronization import (
    Asynchronous,
    Mixed,
    Partial,
    Stale,
    Synchronous,
    asynchronous,
    train,
    virtual,
)

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

STREAMS = [list(digit_batches(4 + worker, 8, seed=worker)) for worker in range(3)]  # uneven batches
SGD = torch.optim.SGD
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
SLOW = Delay(rank=3, kind="send", seconds=0.01)  # the third worker
STRATEGIES = {
    "synchronous": Synchronous(),
    "asynchronous": Asynchronous(),
    "stale": Stale(bound=1),
    "partial": Partial(k=2),
    "mixed": Mixed(switch_at=6),
}


def source(worker, workers):
    return STREAMS[worker]


@pytest.fixture(scope="module")
def runs():
    """Each strategy with three workers, one of them slow: for each rank its record and the ops of its row."""

    def fn():
        return {
            name: steps_of(lambda s=strategy: train(s, model(), source, SGD, servers=1, **MOMENTUM))
            for name, strategy in STRATEGIES.items()
        }

    results = launch(fn, ranks=4, faults=[SLOW]).results
    return {name: [result[name] for result in results] for name in STRATEGIES}


@pytest.mark.parametrize("name", STRATEGIES)
def test_replay_of_a_recorded_run_ends_at_its_weights(runs, name):
    (server, _), *workers = runs[name]
    assert [len(record.losses) for record, _ in workers] == [8, 8, 8]
    assert len(server.updates) == 24
    assert server.staleness == [update.staleness for update in server.updates if not update.dropped]
    curve = virtual.replay(server.updates, model(), source, SGD, **MOMENTUM)
    for record, _ in workers:
        same(record.weights, curve.weights)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_recorded_run_is_the_plan_of_its_updates(runs, name):
    run, planned = recorded([ops for _, ops in runs[name]]), asynchronous.plan(runs[name][0][0].updates)
    check_plan(run)
    check_plan(planned)
    assert run.rows[1:] == planned.rows[1:], "the workers"
    assert sorted(run.rows[0]) == sorted(planned.rows[0]), "the server"
    for peer in (-1, 1, 2, 3):  # the order of the updates, and of the messages with each worker
        ours, theirs = ([op for op in row if op.peer == peer] for row in (run.rows[0], planned.rows[0]))
        assert ours == theirs


def test_stale_workers_stop_at_the_bound(runs):
    clocks = Counter({0: 0, 1: 0, 2: 0})
    for update in runs["stale"][0][0].updates:
        clocks[update.worker] += 1
        # A worker that is one ahead may begin one more gradient, and then waits.
        assert max(clocks.values()) - min(clocks.values()) <= 2
        assert update.staleness <= STRATEGIES["stale"].staleness_bound(3) == (3 - 1) * (2 * 1 + 1)


def test_mixed_is_asynchronous_and_then_synchronous(runs):
    updates = runs["mixed"][0][0].updates
    sizes = Counter(update.version for update in updates)
    first = next(version for version, size in sorted(sizes.items()) if size > 1)
    assert 7 <= first <= 9, "each worker may make one more asynchronous push after the switch"
    late = [update for update in updates if update.version > first]
    assert late and all(update.staleness == 0 for update in late)


def test_every_strategy_on_an_axis_of_a_mesh_and_one_worker_is_one_process():
    batches = list(digit_batches(8, 5))

    def fn():
        group, found = make_mesh(dp=2, tp=2)["dp"].get_group(), {}
        for name, strategy in STRATEGIES.items():
            one = Partial(k=1) if isinstance(strategy, Partial) else strategy
            options = {"servers": 1, "group": group, "lr": 1e-2}
            found[name] = steps_of(lambda s=one, o=options: train(s, model(), batches, torch.optim.AdamW, **o))
        return found

    results = launch(fn, ranks=4).results
    oracle = one_process(model(), batches, torch.optim.AdamW, lr=1e-2)
    for name in STRATEGIES:
        run = recorded([found[name][1] for found in results])
        check_plan(run)
        for server, worker in ((0, 2), (1, 3)):
            served, worked = results[server][name][0], results[worker][name][0]
            same(worked.weights, oracle.weights)
            assert served.staleness == [0] * 5 and served.losses == [] and served.dropped == 0
            assert worked.losses == pytest.approx(oracle.losses, rel=1e-12)
            assert worked.sent_bytes > 5 * 8 * sum(t.numel() for t in oracle.weights.values())


def while_one_computes(pushes_of_others):
    """A loss in which the last worker holds its first gradient back until worker 0 draws its batch number so and so.

    The batches of worker 0 tell it; the last worker tells worker 0 that it has read the weights, so that the order of
    events is the same in every run.
    """
    state = {"steps": 0}

    def drawn(worker, workers):
        for step, batch in enumerate(STREAMS[worker]):
            if worker == 0 and step == 0:
                dist.recv(torch.zeros(1), workers)
            if worker == 0 and step == pushes_of_others:
                dist.send(torch.zeros(1), workers)
            yield batch

    def held(outputs, targets):
        rank, state["steps"] = dist.get_rank(), state["steps"] + 1
        if rank == dist.get_world_size() - 1 and state["steps"] == 1:
            dist.send(torch.zeros(1), 1)
            dist.recv(torch.zeros(1), 1)
        return loss(outputs, targets)

    return drawn, held


def test_asynchronous_workers_do_not_wait_for_a_slow_one_and_a_wrong_order_ends_elsewhere():
    drawn, held = while_one_computes(6)
    run = launch(lambda: train(Asynchronous(), model(), drawn, SGD, loss=held, **MOMENTUM), ranks=3)
    first = next(update for update in run[0].updates if update.worker == 1)
    # Six pushes of worker 0 had left it; the last of them may still have been on its way.
    assert first.read_version == 0 and first.staleness in (5, 6, 7, 8)
    assert [update.version for update in run[0].updates] == list(range(1, 17))
    right, wrong = run[0].updates, [u._replace(read_version=u.version - 1) for u in run[0].updates]
    curves = [virtual.replay(order, model(), source, SGD, **MOMENTUM) for order in (right, wrong)]
    apart = [max((curve.weights[n] - run[1].weights[n]).abs().max() for n in curve.weights) for curve in curves]
    assert apart[0] < 1e-12 < 1e-9 < apart[1]


def test_partial_drops_what_comes_late_and_waits_for_nobody():
    drawn, held = while_one_computes(4)
    run = launch(lambda: train(Partial(k=1), model(), drawn, SGD, loss=held, lr=0.1), ranks=3)
    first = next(update for update in run[0].updates if update.worker == 1)
    assert first.dropped and first.staleness >= 3
    assert first.version - first.read_version == first.staleness, "a dropped one leads to no version of its own"
    assert all(update.staleness == 0 for update in run[0].updates if not update.dropped)
    assert len(run[0].updates) == 16 and run[0].dropped >= 1


def test_what_is_wrong_with_arguments_is_said_on_every_rank():
    cases = [
        (lambda: train(Partial(k=3), model(), source, SGD, lr=0.1), "k=3"),
        (lambda: Partial(k=0), "k=0"),
        (lambda: Stale(bound=-1), "bound=-1"),
        (lambda: Stale(bound=1.5), "bound=1.5"),
        (lambda: Mixed(switch_at="5"), "switch_at='5'"),
        (lambda: train(Mixed(5), model(), source, SGD, servers=2, lr=0.1), "needs one server"),
        (lambda: train(Asynchronous(), model(), source, SGD, lr="0.1"), "lr='0.1'"),
        (lambda: train(Asynchronous(), model(), source, SGD, servers=3, lr=0.1), "leaves no worker"),
        (lambda: train(Asynchronous(), model(), source, SGD, servers=0, lr=0.1), "servers=1 or more"),
    ]
    found = launch(lambda: [said(call) for call, _ in cases], ranks=3).results
    for (_, words), *texts in zip(cases, *found, strict=True):
        assert all(words in text for text in texts), texts


def test_a_nan_is_named_on_its_worker():
    def broken(worker, workers):
        return [(x * (float("nan") if worker == 1 else 1.0), y) for x, y in STREAMS[worker]]

    with pytest.raises(RankFailed) as raised:
        launch(lambda: train(Asynchronous(), model(), broken, SGD, lr=0.1), ranks=3, timeout=20)
    assert (raised.value.rank, raised.value.cause) == (2, "ValueError")
