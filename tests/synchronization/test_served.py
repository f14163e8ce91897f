"""The strategies through a server: what a slow rank costs, by the order of events, and replays of what really ran."""

import sys
from collections import Counter

import cloudpickle
import pytest
import torch
import torch.distributed as dist

from parallel_lab import Delay, RankFailed, launch
from parallel_lab.model import build, digit_batches, loss, train
from parallel_lab.synchronization import asynchronous, mixed, partial, stale, virtual

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64
WIDTHS = (64, 8, 10)
STREAMS = [list(digit_batches(4 + worker, 8, seed=worker)) for worker in range(3)]  # uneven batches
SGD = {"lr": 0.1, "momentum": 0.9}
SLOW = Delay(rank=3, kind="send", seconds=0.01)  # the third worker


def model():
    return build(WIDTHS, dtype=F64)


def source(worker, workers):
    return STREAMS[worker]


def same(weights, oracle):
    assert weights.keys() == oracle.keys()
    for name in oracle:
        torch.testing.assert_close(weights[name], oracle[name], rtol=1e-12, atol=1e-12)


STRATEGIES = [(asynchronous, {}), (stale, {"bound": 1}), (partial, {"k": 2}), (mixed, {"switch_at": 7})]


@pytest.mark.parametrize(("strategy", "settings"), STRATEGIES, ids=lambda value: getattr(value, "__name__", ""))
def test_replay_of_a_recorded_run_ends_at_its_weights(strategy, settings):
    def fn():
        return strategy.train(model(), source, torch.optim.SGD, **settings, **SGD)

    server, *workers = launch(fn, ranks=4, faults=[SLOW]).results
    assert [len(record.losses) for record in workers] == [8, 8, 8]
    assert len(server.updates) == 24
    assert server.staleness == [update.staleness for update in server.updates if not update.dropped]
    curve = virtual.replay(server.updates, model(), source, torch.optim.SGD, workers=3, **SGD)
    for record in workers:
        same(record.weights, curve.weights)


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


def test_a_wrong_order_ends_elsewhere():
    drawn, held = while_one_computes(3)  # so that a gradient is stale in every run
    run = launch(lambda: asynchronous.train(model(), drawn, torch.optim.SGD, loss=held, **SGD), ranks=3)
    right, wrong = run[0].updates, [u._replace(read_version=u.version - 1) for u in run[0].updates]
    curves = [virtual.replay(order, model(), source, torch.optim.SGD, workers=2, **SGD) for order in (right, wrong)]
    apart = [max((curve.weights[n] - run[1].weights[n]).abs().max() for n in curve.weights) for curve in curves]
    assert apart[0] < 1e-12 < 1e-9 < apart[1]


def test_asynchronous_workers_do_not_wait_for_a_slow_one():
    drawn, held = while_one_computes(6)
    run = launch(lambda: asynchronous.train(model(), drawn, torch.optim.SGD, loss=held, lr=0.1), ranks=3)
    first = next(update for update in run[0].updates if update.worker == 1)
    # Six pushes of worker 0 had left it; the last of them may still have been on its way.
    assert first.read_version == 0 and first.staleness in (5, 6, 7, 8)
    assert [update.version for update in run[0].updates] == list(range(1, 17))


def test_partial_drops_what_comes_late_and_waits_for_nobody():
    drawn, held = while_one_computes(4)
    run = launch(lambda: partial.train(model(), drawn, torch.optim.SGD, k=1, loss=held, lr=0.1), ranks=3)
    first = next(update for update in run[0].updates if update.worker == 1)
    assert first.dropped and first.staleness >= 3
    assert first.version - first.read_version == first.staleness, "a dropped one leads to no version of its own"
    assert all(update.staleness == 0 for update in run[0].updates if not update.dropped)
    assert len(run[0].updates) == 16


def test_stale_workers_stop_at_the_bound():
    run = launch(lambda: stale.train(model(), source, torch.optim.SGD, bound=1, lr=0.1), ranks=4, faults=[SLOW])
    clocks = Counter({0: 0, 1: 0, 2: 0})
    for update in run[0].updates:
        clocks[update.worker] += 1
        # A worker that is one ahead may begin one more gradient, and then waits.
        assert max(clocks.values()) - min(clocks.values()) <= 2
        assert update.staleness <= (3 - 1) * (2 * 1 + 1)


def test_mixed_is_asynchronous_and_then_synchronous():
    run = launch(lambda: mixed.train(model(), source, torch.optim.SGD, switch_at=6, lr=0.1), ranks=4, faults=[SLOW])
    sizes = Counter(update.version for update in run[0].updates)
    first = next(version for version, size in sorted(sizes.items()) if size > 1)
    assert 7 <= first <= 9, "each worker may make one more asynchronous push after the switch"
    late = [update for update in run[0].updates if update.version > first]
    assert late and all(update.staleness == 0 for update in late)


def test_one_worker_is_one_process():
    batches = list(digit_batches(8, 5))
    oracle = train(model(), batches, torch.optim.AdamW, lr=1e-2)
    run = launch(lambda: asynchronous.train(model(), batches, torch.optim.AdamW, lr=1e-2), ranks=2)
    same(run[1].weights, oracle.weights)
    assert run[0].staleness == [0] * 5 and run[0].losses == []
    assert run[1].losses == pytest.approx(oracle.losses, rel=1e-12)
    assert run[1].sent_bytes > 5 * 8 * sum(t.numel() for t in oracle.weights.values())


@pytest.mark.parametrize(
    ("strategy", "options", "pattern"),
    [
        (partial, {"k": 3}, "k=3"),
        (partial, {"k": 0}, "k=0"),
        (stale, {"bound": -1}, "bound=-1"),
        (stale, {"bound": 1.5}, "bound=1.5"),
        (mixed, {"switch_at": "5"}, "switch_at='5'"),
        (asynchronous, {"lr": "0.1"}, "lr='0.1'"),
        (asynchronous, {"servers": 3}, "leaves no worker"),
    ],
)
def test_bad_arguments(strategy, options, pattern):
    with pytest.raises(RankFailed, match=pattern):
        launch(lambda: strategy.train(model(), source, torch.optim.SGD, **{"lr": 0.1, **options}), ranks=3, timeout=20)


def test_a_nan_is_named_on_its_worker():
    def broken(worker, workers):
        return [(x * (float("nan") if worker == 1 else 1.0), y) for x, y in STREAMS[worker]]

    with pytest.raises(RankFailed) as raised:
        launch(lambda: asynchronous.train(model(), broken, torch.optim.SGD, lr=0.1), ranks=3, timeout=20)
    assert (raised.value.rank, raised.value.cause) == (2, "ValueError")
