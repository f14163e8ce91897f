"""Virtual time: staleness in closed form, the order of events, replays equal to oracles."""

import sys
from collections import Counter

import cloudpickle
import pytest
import torch

from parallel_lab import draw, launch
from parallel_lab.model import build, digit_batches, digit_images, train
from parallel_lab.plan import check_plan
from parallel_lab.synchronization import (
    Asynchronous,
    LocalSteps,
    Mixed,
    OuterSteps,
    Partial,
    Stale,
    Synchronous,
    Update,
    asynchronous,
    virtual,
)
from parallel_lab.synchronization import train as train_ranks
from parallel_lab.synchronization.virtual import replay, schedule, slow_worker

# Ranks get this file's helpers as copies: importing it there would load scikit-learn and pytest in each of them.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

F64 = torch.float64
WIDTHS = (64, 8, 10)
SGD = {"lr": 0.1, "momentum": 0.9}


def model():
    return build(WIDTHS, dtype=F64)


def streams(worker, workers):
    return list(digit_batches(4 + worker, 40, seed=worker))


def same(weights, oracle, tolerance=1e-12):
    assert weights.keys() == oracle.keys()
    for name in oracle:
        torch.testing.assert_close(weights[name], oracle[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_equal_asynchronous_workers_are_n_minus_1_stale(workers, delay):
    found = schedule(Asynchronous(), 1.0, workers, 10 * workers, push_s=delay, pull_s=delay)
    assert [u.staleness for u in found[:workers]] == list(range(workers)), "all start from version 0"
    assert {u.staleness for u in found[workers:]} == {workers - 1}
    assert [u.version for u in found] == list(range(1, 10 * workers + 1))
    assert found.seconds == pytest.approx(10 * (1 + 2 * delay))


def test_a_slow_worker_is_stalest_and_holds_nobody_up():
    found = schedule(Asynchronous(), slow_worker(3, 4.0), 3, 90)
    slow = [u for u in found if u.worker == 2]
    # Four steps of two fast workers for each of its own; at equal moments the order is that of the index.
    assert {u.staleness for u in slow} == {8}
    assert [u.step for u in slow] == list(range(len(slow)))
    assert Counter(u.worker for u in found) == {0: 40, 1: 40, 2: 10}
    assert found.seconds == pytest.approx(40.0)


def test_synchronous_takes_the_slowest_ones_time():
    found = schedule(Synchronous(), slow_worker(4, 3.0), 4, 40, push_s=0.5, pull_s=0.25)
    assert found.seconds == pytest.approx(10 * 3.75)
    assert found.staleness == [0] * 40
    assert Counter(u.version for u in found) == dict.fromkeys(range(1, 11), 4)
    assert [u.worker for u in found[:4]] == [0, 1, 2, 3]
    uneven = schedule(Synchronous(), 1.0, 4, 6)
    assert [u.version for u in uneven] == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("bound", [0, 1, 3])
@pytest.mark.parametrize("factor", [1.0, 2.5, 10.0])
def test_stale_synchronous_keeps_its_bound(bound, factor):
    workers = 3
    found = schedule(Stale(bound), slow_worker(workers, factor), workers, 60, push_s=0.1)
    assert max(found.staleness) <= (workers - 1) * (2 * bound + 1)
    for update in found:
        # Gradients begun before this one's end, by worker: nobody begins one more than `bound` ahead of the slowest.
        begun = update.step
        others = [sum(u.worker == w and u.finished_s <= update.started_s for u in found) for w in range(workers)]
        live = [done for w, done in enumerate(others) if done < sum(u.worker == w for u in found)]
        assert begun - min(live, default=begun) <= bound
    if factor > 1:
        loose = schedule(Asynchronous(), slow_worker(workers, factor), workers, 60, push_s=0.1)
        assert loose.seconds < found.seconds


def test_partial_drops_the_slow_and_waits_for_nobody():
    found = schedule(Partial(3), slow_worker(4, 2.5), 4, 48)
    used = Counter(u.version for u in found if not u.dropped)
    dropped = [u for u in found if u.dropped]
    assert set(used.values()) == {3} or list(used.values())[:-1] == [3] * (len(used) - 1)
    assert dropped and all(u.worker == 3 and u.staleness > 0 for u in dropped)
    assert found.staleness == [0] * (48 - len(dropped))
    fast = [u.finished_s for u in found if u.worker == 0]
    assert fast == [float(step) for step in range(1, len(fast) + 1)], "a step a second, whatever the slow one does"


def test_mixed_switches():
    found = schedule(Mixed(10), slow_worker(3, 2.0), 3, 40)
    sizes = Counter(u.version for u in found)
    # Two gradients were under way when version 10 came: they are used at once, and all others wait for each other.
    assert [sizes[version] for version in range(1, 13)] == [1] * 12
    assert [sizes[version] for version in range(13, 22)] == [3] * 9
    assert all(u.read_version < 10 for u in found if u.version <= 12)
    assert {u.staleness for u in found if u.version > 13} == {0} and max(found.staleness) <= 4


def test_local_steps_wait_once_a_round():
    found = schedule(LocalSteps(4), slow_worker(2, 3.0), 2, 22, push_s=0.5, pull_s=0.5)
    assert Counter((u.worker, u.version) for u in found) == {
        (worker, version): steps for worker in (0, 1) for version, steps in ((1, 4), (2, 4), (3, 3))
    }
    assert found.seconds == pytest.approx((4 + 4 + 3) * 3 + 3)
    jitter = schedule(LocalSteps(2), lambda worker, step: 1.0 + (worker == step % 2), 2, 8)
    meeting_each_step = schedule(LocalSteps(1), lambda worker, step: 1.0 + (worker == step % 2), 2, 8)
    assert (jitter.seconds, meeting_each_step.seconds) == (6.0, 8.0), "delays that come and go even out"


def test_the_same_arguments_give_the_same_schedule():
    def once():
        return schedule(Stale(2), lambda worker, step: 1 + (7 * worker + 3 * step) % 5, 4, 100, 0.1, 0.2)

    assert once().updates == once().updates


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("optimizer", "options", "tolerance"), [(torch.optim.SGD, SGD, 1e-12), (torch.optim.AdamW, {"lr": 1e-2}, 1e-10)]
)
def test_replay_of_the_synchronous_schedule_is_the_oracle(workers, optimizer, options, tolerance):
    batches = list(digit_batches(10, 6))
    oracle = train(model(), batches, optimizer, **options)
    plan = schedule(Synchronous(), slow_worker(workers, 2.0), workers, 6 * workers)
    curve = replay(plan, model(), batches, optimizer, points=6, **options)
    same(curve.weights, oracle.weights, tolerance)
    assert curve.samples == [10 * step for step in range(1, 7)]
    assert curve.seconds == pytest.approx([2.0 * step for step in range(1, 7)])


def test_replay_of_local_steps_is_what_ranks_do():
    batches = list(digit_batches(10, 7))

    def fn():
        local = train_ranks(LocalSteps(3), model(), batches, torch.optim.SGD, **SGD)
        return local.weights, train_ranks(OuterSteps(3), model(), batches, torch.optim.AdamW, lr=1e-2).weights

    local, far = launch(fn, ranks=3)[0]
    plan = schedule(LocalSteps(3), 1.0, 3, 21)
    same(replay(plan, model(), batches, torch.optim.SGD, **SGD).weights, local)
    plan = schedule(OuterSteps(3), 1.0, 3, 21)
    same(replay(plan, model(), batches, torch.optim.AdamW, lr=1e-2).weights, far, 1e-10)


def test_replay_of_stale_gradients_by_hand():
    """Two updates from version 0, then one from version 1: w1 = w0 - a g(w0), w2 = w1 - a g(w0), w3 = w2 - a g(w1)."""
    order = [
        Update(0, 0, 1, 0, 1, 0),
        Update(1, 0, 1, 0, 2, 1),
        Update(0, 1, 2, 1, 3, 1),
        Update(1, 1, 2, 2, 3, 1, True),
    ]
    rows = {worker: streams(worker, 2) for worker in (0, 1)}

    def gradient(weights, batch):
        at = model()
        at.load_state_dict(weights)
        at.zero_grad()
        torch.nn.functional.cross_entropy(at(batch[0].to(F64)), batch[1]).backward()
        return {name: parameter.grad for name, parameter in at.named_parameters()}

    def minus(weights, g):
        return {name: weights[name] - 0.1 * g[name] for name in weights}

    w0 = model().state_dict()
    w1 = minus(w0, gradient(w0, rows[0][0]))
    w2 = minus(w1, gradient(w0, rows[1][0]))
    w3 = minus(w2, gradient(w1, rows[0][1]))
    same(replay(order, model(), streams, torch.optim.SGD, lr=0.1).weights, w3)


def test_held_out_loss_and_points():
    plan = schedule(Asynchronous(), 1.0, 4, 60)
    images, labels = digit_images("test")
    curve = replay(plan, build(WIDTHS), streams, torch.optim.SGD, held_out=(images, labels), points=5, lr=0.2)
    assert len(curve.losses) == 5 and curve.losses[-1] < curve.losses[0]
    final = build(WIDTHS)
    final.load_state_dict(curve.weights)
    assert curve.losses[-1] == pytest.approx(torch.nn.functional.cross_entropy(final(images), labels).item(), rel=1e-5)
    again = replay(plan, build(WIDTHS), streams, torch.optim.SGD, held_out=(images, labels), points=5, lr=0.2)
    assert again.losses == curve.losses
    running = replay(plan, build(WIDTHS), streams, torch.optim.SGD, lr=0.2)
    assert running.losses[0] > running.losses[-1] and len(running.losses) == 20


def test_the_trace_shows_who_waits():
    plan = schedule(Synchronous(), slow_worker(2, 3.0), 2, 4, push_s=0.5, pull_s=0.5)
    trace = virtual.trace(plan, message_bytes=100)
    assert trace.simulated and trace.ranks == 2
    assert (trace.busy_s(0), trace.busy_s(1)) == (2.0, 6.0)
    assert trace.bubble() == pytest.approx(1 - 8 / 16)
    assert [trace.bytes_sent(rank) for rank in (0, 1)] == [200, 200]
    assert {span.kind for span in trace.spans} == {"gradient", "push", "pull"}
    dropped = virtual.trace(schedule(Partial(1), slow_worker(2, 3.0), 2, 8))
    assert any(span.kind == "dropped" and span.rank == 1 for span in dropped.spans)
    meetings = virtual.trace(schedule(LocalSteps(2), 1.0, 2, 8, 0.5, 0.5))
    assert sum(span.kind == "meet" for span in meetings.spans) == 4
    assert "gradient" in draw(trace).text


@pytest.mark.parametrize("rule", [Asynchronous(), Stale(1), Partial(2), Mixed(7), Synchronous()], ids=repr)
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_schedule_is_a_plan(rule, workers):
    rule = Partial(1) if isinstance(rule, Partial) and workers == 1 else rule
    found = schedule(rule, slow_worker(workers, 2.5), workers, 20, push_s=0.1)
    plan = asynchronous.plan(found, workers=workers)
    check_plan(plan)
    assert plan.ranks == workers + 1
    assert sum(op.kind == "update" for op in plan) == max(update.version for update in found)
    assert sum(op.kind == "B" for op in plan) == 20, "dropped ones are computed too"


@pytest.mark.parametrize(
    ("strategy", "changes", "error", "pattern"),
    [
        (Partial(5), {}, ValueError, "k=5"),
        (Asynchronous, {}, TypeError, "expected a rule"),
        (Asynchronous(), {"workers": 0}, ValueError, "workers=0"),
        (Asynchronous(), {"updates": 1.5}, TypeError, "updates=1.5"),
        (Asynchronous(), {"push_s": -1.0}, ValueError, "push_s=-1"),
        (Asynchronous(), {"step_s": [1.0, 2.0]}, ValueError, "2 numbers for 4 workers"),
        (Asynchronous(), {"step_s": lambda worker, step: "1"}, TypeError, r"step_s\(0, 0\)='1'"),
    ],
)
def test_bad_schedules(strategy, changes, error, pattern):
    arguments = {"step_s": 1.0, "workers": 4, "updates": 8} | changes
    with pytest.raises(error, match=pattern):
        schedule(strategy, **arguments)


def test_too_few_batches():
    plan = schedule(Asynchronous(), 1.0, 2, 8)
    with pytest.raises(ValueError, match="worker 0 has no batch left"):
        replay(plan, model(), list(digit_batches(4, 3)), torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="empty schedule"):
        replay([], model(), [], torch.optim.SGD, lr=0.1)
