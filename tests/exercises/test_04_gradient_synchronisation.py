"""Exercises of chapter 04: solutions score full marks, stubs none, and every shortcut fails with its own message."""

import importlib
import sys
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import synchronisation
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check
from parallel_lab.course.exercises import EXERCISES, local_sgd
from parallel_lab.course.lab import Lab, Wrong
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "04_gradient_synchronisation"
NAMES = ["asynchronous_sgd", "local_sgd"]
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
ASYNCHRONOUS, LOCAL = SOLUTIONS["asynchronous_sgd"], SOLUTIONS["local_sgd"]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize("name", NAMES)
def test_solution_scores_full_marks(name):
    report = check(name, SOLUTIONS[name])
    assert report.score == 1, repr(report)
    assert EXERCISES[name].solution_note in repr(report)


@pytest.mark.parametrize("name", NAMES)
def test_untouched_stub_scores_nothing(name):
    stubs = functions_in(ROOT / "exercises" / f"{NOTEBOOK}.ipynb")
    report = check(name, stubs[name])
    assert report.score == 0
    assert not report.passed


def test_exercises_are_what_the_command_writes():
    written = (ROOT / "exercises" / f"{NOTEBOOK}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, NOTEBOOK)


def test_the_cell_that_measures_the_gain_runs(capsys):
    SOLUTIONS["measure_gain"]((0, 3, 3, 1))
    assert "rank 3: 1 gradients finished by then" in capsys.readouterr().out


# --- asynchronous SGD


def work(weights, gradient, counts, pull=True):
    """The worker of the solution."""
    rank, weights = dist.get_rank(), weights.clone()
    for batch in range(counts[rank]):
        dist.send(gradient(weights, batch), 0)
        if pull and batch + 1 < counts[rank]:
            dist.recv(weights, 0)


def next_in(order, arrived, left):
    """A server that listens to the workers in turn."""
    worker = next(rank for rank in order if left[rank])
    order.append(order.pop(order.index(worker)))
    dist.recv(arrived, worker)
    return worker


def in_turn(weights, gradient, counts, lr):
    if dist.get_rank():
        return work(weights, gradient, counts)
    weights, left, sent_at, updates = weights.clone(), list(counts), [0] * len(counts), []
    order, arrived = list(range(1, len(counts))), torch.empty_like(weights)
    while sum(left):
        worker = next_in(order, arrived, left)
        weights -= lr * arrived
        updates.append((worker, len(updates) - sent_at[worker]))
        left[worker] -= 1
        if left[worker]:
            sent_at[worker] = len(updates)
            dist.send(weights, worker)
    return weights, updates


def synchronous(weights, gradient, counts, lr):
    """Waits for a gradient of every worker, applies them, answers all; the staleness is reported as it is."""
    if dist.get_rank():
        return work(weights, gradient, counts)
    weights, updates, arrived = weights.clone(), [], torch.empty_like(weights)
    for batch in range(max(counts)):
        workers = [rank for rank, count in enumerate(counts) if batch < count]
        for place, _ in enumerate(workers):
            worker = dist.recv(arrived)
            weights -= lr * arrived
            updates.append((worker, place))
        for worker in workers:
            if batch + 1 < counts[worker]:
                dist.send(weights, worker)
    return weights, updates


def with_a_barrier(weights, gradient, counts, lr):
    dist.barrier()
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def with_an_all_reduce_of_one_number(weights, gradient, counts, lr):
    workers = dist.new_group(list(range(1, len(counts))))

    def meeting(weights, batch):
        if batch < min(counts[1:]):
            dist.all_reduce(torch.ones(1), group=workers)
        return gradient(weights, batch)

    return ASYNCHRONOUS(weights, meeting, counts, lr)


def with_a_token_between_workers(weights, gradient, counts, lr):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    if rank and last > 1:
        token = torch.ones(1)
        works = [dist.isend(token, rank % last + 1), dist.irecv(torch.ones(1), (rank - 2) % last + 1)]
        for one in works:
            one.wait()
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def never_pulls(weights, gradient, counts, lr):
    if dist.get_rank():
        return work(weights, gradient, counts, pull=False)
    weights, updates, arrived = weights.clone(), [], torch.empty_like(weights)
    for _ in range(sum(counts)):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates)))
    return weights, updates


def reported(change):
    """The solution, with other updates reported than it made: `change(number, worker, staleness, counts)`."""

    def answer(weights, gradient, counts, lr):
        result = ASYNCHRONOUS(weights, gradient, counts, lr)
        if result is None:
            return None
        return result[0], [change(number, *update, counts) for number, update in enumerate(result[1])]

    return answer


never_stale = reported(lambda number, worker, staleness, counts: (worker, 0))
as_many_as_others = reported(lambda number, worker, staleness, counts: (worker, len(counts) - 2))
counted_from_the_push = reported(lambda number, worker, staleness, counts: (worker, max(0, staleness - 1)))
staleness_missing = reported(lambda number, worker, staleness, counts: worker)


def order_made_up(weights, gradient, counts, lr):
    result = ASYNCHRONOUS(weights, gradient, counts, lr)
    return result and (result[0], sorted(result[1]))


def one_batch_for_ever(weights, gradient, counts, lr):
    return ASYNCHRONOUS(weights, lambda weights, batch: gradient(weights, 0), counts, lr)


def divided_by_the_workers(weights, gradient, counts, lr):
    return ASYNCHRONOUS(weights, gradient, counts, lr / max(1, len(counts) - 1) if len(counts) > 2 else lr)


def two_gradients_at_once(weights, gradient, counts, lr):
    """Old weights for every gradient: the server answers with a copy that it made at the start."""
    if dist.get_rank():
        return work(weights, gradient, counts)
    start, arrived, left, updates = weights.clone(), torch.empty_like(weights), list(counts), []
    weights = weights.clone()
    while sum(left):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates)))
        left[worker] -= 1
        if left[worker]:
            dist.send(start, worker)
    return weights, updates


def tells_everyone(weights, gradient, counts, lr):
    """Each push is answered to all workers; who is meant stands in the message."""
    rank, workers, total = dist.get_rank(), range(1, len(counts)), sum(counts)
    if rank:
        box, seen = torch.cat([weights, weights[:1]]), 0
        works = [torch.empty_like(box) for _ in range(total)]
        pending = [dist.irecv(one, 0) for one in works]
        for batch in range(counts[rank]):
            dist.send(gradient(box[:-1].clone(), batch), 0)
            while True:
                pending[seen].wait()
                box, seen = works[seen], seen + 1
                if int(box[-1]) == rank:
                    break
        for late in pending[seen:]:
            late.wait()
        return None
    weights, arrived, updates, sent_at, sent = weights.clone(), torch.empty_like(weights), [], [0] * len(counts), []
    for _ in range(total):
        worker = dist.recv(arrived)
        weights -= lr * arrived
        updates.append((worker, len(updates) - sent_at[worker]))
        sent_at[worker] = len(updates)
        box = torch.cat([weights, torch.tensor([float(worker)], dtype=weights.dtype)])
        sent += [(dist.isend(box, other), box) for other in workers]
    for one, _ in sent:
        one.wait()
    return weights, updates


def own_group(weights, gradient, counts, lr):
    group = dist.new_group(backend="gloo")
    inner_send, inner_recv = dist.send, dist.recv
    dist.send = lambda tensor, to: inner_send(tensor, to, group=group)
    dist.recv = lambda tensor, source=None: inner_recv(tensor, source, group=group)
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def alone(weights, gradient, counts, lr):
    """The server computes everything itself."""
    weights, updates = weights.clone(), []
    if dist.get_rank() == 0:
        for worker, count in enumerate(counts):
            for batch in range(count):
                weights -= lr * gradient(weights, batch)
                updates.append((worker, 0))
    return weights, updates


def the_reference(weights, gradient, counts, lr):
    return synchronisation.asynchronous.train(weights, gradient, counts, lr)


def the_reference_by_stealth(weights, gradient, counts, lr):
    if dist.get_rank() == 0:
        importlib.import_module(".".join(("parallel_lab", "synchron" + "isation")))
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def pytorchs_own(weights, gradient, counts, lr):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return ASYNCHRONOUS(weights, gradient, counts, lr)


def recorder_cleared(weights, gradient, counts, lr):
    result = ASYNCHRONOUS(weights, gradient, counts, lr)
    recorder().spans.clear()
    return result


ASYNCHRONOUS_CHEATS = [
    (in_turn, "before rank 2 had finished its gradient 1, rank 1 finished 3 of its 6; nothing forced it to wait"),
    (synchronous, "before rank 2 had finished its gradient 1, rank 1 finished 2 of its 6; nothing forced it to wait"),
    (with_a_barrier, "rank 0 called barrier"),
    (with_an_all_reduce_of_one_number, "rank 1 called all_reduce"),
    (with_a_token_between_workers, "rank 1 sent rank 2 4 B, worker to worker"),
    (never_pulls, "at 2 ranks: rank 1 computed its gradient 1 at weights without its own gradient 0"),
    (never_stale, "and 0 was reported"),
    (as_many_as_others, "was reported"),
    (counted_from_the_push, "was reported"),
    (staleness_missing, "rank 0's updates are a list of 5, expected pairs (worker, staleness)"),
    (order_made_up, "at weights that the server never had"),
    (one_batch_for_ever, "rank 1 computed gradients of its batches 0, 0, 0, 0, 0; expected 0 to 4, each once"),
    (divided_by_the_workers, "at weights that the server never had"),
    (two_gradients_at_once, "rank 1 computed its gradient 1 at weights without its own gradient 0"),
    (tells_everyone, "the weights for its 3 later gradients are 1.536 kB"),
    (own_group, "at 2 ranks: rank 1 sent rank 0 0 B by messages; 5 gradients are 2.56 kB"),
    (alone, "rank 0 has 0 batches, and was asked for number 0"),
    (the_reference, "the_reference uses parallel_lab.synchronisation"),
    (the_reference_by_stealth, "at 2 ranks: rank 0 used parallel_lab."),
    (pytorchs_own, "pytorchs_own uses torch.nn.parallel"),
    (recorder_cleared, "rank 1 sent rank 0 0 B by messages"),
]


# --- local SGD


def locally(weights, gradient, counts, every, lr, average):
    """Local SGD with `average(weights, steps)` in place of the right one."""
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        average(weights, steps)
    return weights


def averaged(weights, steps):
    weights *= steps[dist.get_rank()] / sum(steps)
    dist.all_reduce(weights)


def every_step(weights, gradient, counts, every, lr):
    return LOCAL(weights, gradient, counts, 1, lr)


def never(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: None)


def only_at_the_end(weights, gradient, counts, every, lr):
    return LOCAL(weights, gradient, counts, max(counts), lr)


def gradients_averaged(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank] - 1):
            weights -= lr * gradient(weights, batch)
        last = gradient(weights, first + steps[rank] - 1) if steps[rank] else torch.zeros_like(weights)
        dist.all_reduce(last)
        weights -= lr * last / sum(step > 0 for step in steps)
    return weights


def all_alike(weights, gradient, counts, every, lr):
    def average(weights, steps):
        dist.all_reduce(weights)
        weights /= len(steps)

    return locally(weights, gradient, counts, every, lr, average)


def summed(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: dist.all_reduce(weights))


def meeting_in_every_step(weights, gradient, counts, every, lr):
    def meet(weights, batch):
        if batch < min(counts):
            dist.barrier()
        return gradient(weights, batch)

    return LOCAL(weights, meet, counts, every, lr)


def first_ranks_weights(weights, gradient, counts, every, lr):
    return locally(weights, gradient, counts, every, lr, lambda weights, steps: dist.broadcast(weights, 0))


def gathered(weights, gradient, counts, every, lr):
    def average(weights, steps):
        every_rank = [torch.empty_like(weights) for _ in steps]
        dist.all_gather(every_rank, weights)
        weights.copy_(sum(one * step for one, step in zip(every_rank, steps, strict=True)) / sum(steps))

    return locally(weights, gradient, counts, every, lr, average)


def averaged_twice(weights, gradient, counts, every, lr):
    def average(weights, steps):
        averaged(weights, steps)
        averaged(weights, [1] * len(steps))

    return locally(weights, gradient, counts, every, lr, average)


def last_round_left_out(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, max(counts), every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        if first + every <= max(counts):
            averaged(weights, steps)
    return weights


def goes_home_early(weights, gradient, counts, every, lr):
    weights, rank = weights.clone(), dist.get_rank()
    for first in range(0, counts[rank], every):
        steps = [max(0, min(every, count - first)) for count in counts]
        for batch in range(first, first + steps[rank]):
            weights -= lr * gradient(weights, batch)
        averaged(weights, steps)
    return weights


def group_of_their_own(weights, gradient, counts, every, lr):
    group = dist.new_group(backend="gloo")

    def average(weights, steps):
        weights *= steps[dist.get_rank()] / sum(steps)
        dist.all_reduce(weights, group=group)

    return locally(weights, gradient, counts, every, lr, average)


def one_batch_again(weights, gradient, counts, every, lr):
    return LOCAL(weights, lambda weights, batch: gradient(weights, 0), counts, every, lr)


def the_local_reference(weights, gradient, counts, every, lr):
    return synchronisation.local_sgd(weights, gradient, counts, every, lr)


def parallel_lab_ddp(weights, gradient, counts, every, lr):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return LOCAL(weights, gradient, counts, every, lr)


LOCAL_CHEATS = [
    (every_step, "at 2 ranks, [6, 6] batches, every 3: the weights were averaged after every step"),
    (never, "at 2 ranks, [6, 6] batches, every 3: the weights were never averaged"),
    (only_at_the_end, "at 2 ranks, [6, 6] batches, every 3: the weights were averaged only at the end"),
    (gradients_averaged, "at 2 ranks, [6, 6] batches, every 3: the gradients were averaged, not the weights"),
    (all_alike, "at 3 ranks, [7, 5, 2] batches, every 3: each rank counted alike"),
    (summed, "rank 0 computed its gradient 3 at other weights than local SGD has there"),
    (meeting_in_every_step, "called barrier between its gradients 0 and 1, within a round"),
    (first_ranks_weights, "rank 0 computed its gradient 3 at other weights than local SGD has there"),
    (gathered, "at 3 ranks: rank 0 sent 2.88 kB, 3 averages by a ring send"),
    (averaged_twice, "at 2 ranks: rank 0 sent 1.92 kB, 2 averages by a ring send"),
    (last_round_left_out, "at 2 ranks: rank 1: element"),
    (goes_home_early, "the ranks did not finish"),
    (group_of_their_own, "at 2 ranks: rank 0 sent 0 B by messages; for 2 averages a rank must send 960 B"),
    (one_batch_again, "rank 0 computed gradients of its batches 0, 0, 0, 0, 0, 0; expected 0 to 5, each once"),
    (the_local_reference, "the_local_reference uses parallel_lab.synchronisation"),
    (parallel_lab_ddp, "parallel_lab_ddp uses torch.nn.parallel"),
]


CHEATS = [
    pytest.param(name, fn, said, id=f"{name}-{said[:20] if fn.__name__ == 'answer' else fn.__name__}")
    for name, cases in (("asynchronous_sgd", ASYNCHRONOUS_CHEATS), ("local_sgd", LOCAL_CHEATS))
    for fn, said in cases
]


def failures(name, cheat):
    """What a check says of a cheat, test by test; nothing further is run once it has been found out."""
    lab = Lab()
    for test in EXERCISES[name].tests:
        try:
            test(cheat, lab)
        except Wrong as wrong:
            yield wrong.seen


@pytest.mark.parametrize(("name", "cheat", "said"), CHEATS)
def test_cheat_fails_with_its_message(name, cheat, said):
    seen = []
    assert any(said in (seen.append(one) or one) for one in failures(name, cheat)), seen


@pytest.mark.parametrize(("name", "cheat"), [("asynchronous_sgd", with_a_barrier), ("local_sgd", every_step)])
def test_a_cheat_does_not_pass(name, cheat):
    report = check(name, cheat)
    assert not report.passed
    assert any(said in repr(report) for _, fn, said in (p.values for p in CHEATS) if fn is cheat)


def test_simulation_with_one_step_a_round_is_synchronous_sgd():
    outcome = local_sgd._run(LOCAL, Lab(), (4, 4, 4), 1)
    weights = local_sgd.make_weights(local_sgd.WIDTH)
    for batch in range(4):
        mean = torch.stack([local_sgd._gradient(outcome, rank, batch, weights) for rank in range(3)]).mean(0)
        weights = weights - local_sgd.LR * mean
    torch.testing.assert_close(local_sgd.simulate(outcome, (4, 4, 4), 1)[0][2], weights, rtol=0, atol=1e-14)
