"""Exercise of chapter 05: the solution scores full marks, the stub none, and every shortcut fails with its message."""

import importlib
import sys
from pathlib import Path

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from parallel_lab import parameter_server as reference
from parallel_lab.cli.folders import functions_in
from parallel_lab.course import generate
from parallel_lab.course.checks import check
from parallel_lab.course.exercises import EXERCISES
from parallel_lab.course.lab import Lab, Wrong
from parallel_lab.trace import recorder

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
NOTEBOOK = "05_parameter_server"
SOLUTIONS = functions_in(ROOT / "solutions" / f"{NOTEBOOK}.ipynb")
SOLUTION, SERVE, WORK = SOLUTIONS["parameter_server"], SOLUTIONS["serve"], SOLUTIONS["work"]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def test_solution_scores_full_marks():
    report = check("parameter_server", SOLUTION)
    assert report.score == 1, repr(report)
    assert EXERCISES["parameter_server"].solution_note in repr(report)


def test_untouched_stub_scores_nothing():
    stubs = functions_in(ROOT / "exercises" / f"{NOTEBOOK}.ipynb")
    report = check("parameter_server", stubs["parameter_server"])
    assert report.score == 0
    assert not report.passed


def test_exercises_are_what_the_command_writes():
    written = (ROOT / "exercises" / f"{NOTEBOOK}.ipynb").read_bytes().decode()
    assert written == generate.generate(ROOT, NOTEBOOK)


def bounds(size, servers, rank):
    """Where the slice of server `rank` begins and ends."""
    part = torch.tensor_split(torch.arange(size), servers)[rank]
    return int(part[0]), int(part[-1]) + 1


def with_server(serve, work=WORK):
    """An answer that is the solution's but for `serve` or `work`."""

    def answer(initial, size, gradient, servers, counts, bound, lr, momentum):
        rank = dist.get_rank()
        if rank >= servers:
            return work(size, gradient, servers, counts[rank])
        weights = initial(*bounds(size, servers, rank))
        return serve(weights, servers, counts, bound, lr, momentum)

    return answer


def server(may_go, momentum_here=True, step=lambda lr, counts, servers: lr):
    """A server that answers a waiting worker if `may_go(clocks, counts, worker, bound)`."""

    def serve(weights, servers, counts, bound, lr, momentum):
        velocity, arrived, updates = torch.zeros_like(weights), torch.empty_like(weights), []
        clock, waiting = [0] * len(counts), set(range(servers, len(counts)))
        while any(clock[rank] < count for rank, count in enumerate(counts)):
            for rank in sorted(waiting):
                if may_go(clock, counts, rank, bound):
                    dist.send(weights, rank)
                    waiting.remove(rank)
            worker = dist.recv(arrived)
            velocity.mul_(momentum if momentum_here else 0).add_(arrived)
            weights.sub_(step(lr, counts, servers) * velocity)
            updates.append(worker)
            clock[worker] += 1
            if clock[worker] < counts[worker]:
                waiting.add(worker)
        return weights, updates

    return with_server(serve)


def busy(clock, counts):
    return [clock[rank] for rank, count in enumerate(counts) if clock[rank] < count]


def fastest_other(clock, counts, worker):
    others = [clock[rank] for rank, count in enumerate(counts) if rank != worker and clock[rank] < count]
    return max(others, default=max(counts))


ignores_the_bound = server(lambda clock, counts, worker, bound: True)
always_in_step = server(lambda clock, counts, worker, bound: clock[worker] <= min(busy(clock, counts)))
one_step_too_strict = server(
    lambda clock, counts, worker, bound: clock[worker] - max(bound - 1, 0) <= min(busy(clock, counts))
)
one_step_too_far = server(lambda clock, counts, worker, bound: clock[worker] - bound - 1 <= min(busy(clock, counts)))
bound_on_the_fastest = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= fastest_other(clock, counts, worker)
)
never_finished_counted = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(clock[rank] for rank, c in enumerate(counts) if c)
)
without_momentum = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(busy(clock, counts)), momentum_here=False
)
averaged_gradients = server(
    lambda clock, counts, worker, bound: clock[worker] - bound <= min(busy(clock, counts)),
    step=lambda lr, counts, servers: lr / (len(counts) - servers),
)


def never_pulling(size, gradient, servers, count):
    weights = torch.empty(size, dtype=torch.float64)
    slices = torch.tensor_split(weights, servers)
    for owner, one in enumerate(slices):
        dist.recv(one, owner)
    for batch in range(count):
        pushed = torch.tensor_split(gradient(weights, batch), servers)
        for push in [dist.isend(one, owner) for owner, one in enumerate(pushed)]:
            push.wait()


def never_answering(weights, servers, counts, bound, lr, momentum):
    velocity, arrived, updates = torch.zeros_like(weights), torch.empty_like(weights), []
    for rank in range(servers, len(counts)):
        dist.send(weights, rank)
    for _ in range(sum(counts)):
        updates.append(dist.recv(arrived))
        velocity.mul_(momentum).add_(arrived)
        weights.sub_(lr * velocity)
    return weights, updates


never_pulls = with_server(never_answering, never_pulling)


def ignoring_what_comes(size, gradient, servers, count):
    """Pulls for show: computes at the first weights for ever."""
    first = []

    def at_first(weights, batch):
        if not first:
            first.append(weights.clone())
        return gradient(first[0], batch)

    return WORK(size, at_first, servers, count)


pulls_for_show = with_server(SERVE, ignoring_what_comes)


def one_batch_for_ever(initial, size, gradient, servers, counts, bound, lr, momentum):
    def same(weights, batch):
        return gradient(weights, 0)

    return SOLUTION(initial, size, same, servers, counts, bound, lr, momentum)


def one_server_for_all(initial, size, gradient, servers, counts, bound, lr, momentum):
    """Rank 0 serves all the weights; other servers idle."""
    rank = dist.get_rank()
    if rank >= servers:
        return WORK(size, gradient, 1, counts[rank])
    if rank == 0:
        return SERVE(initial(0, size), servers, counts, bound, lr, momentum)
    return torch.empty(0, dtype=torch.float64), [rank for rank, count in enumerate(counts) for _ in range(count)]


def all_on_every_server(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if rank >= servers:
        return WORK(size, gradient, servers, counts[rank])
    first, last = bounds(size, servers, rank)
    return SERVE(initial(0, size)[first:last], servers, counts, bound, lr, momentum)


def all_in_a_drawer(initial, size, gradient, servers, counts, bound, lr, momentum):
    """Takes its slice, and makes room for everything."""
    drawer = torch.zeros(size, dtype=torch.float64)
    answer = SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)
    return answer if drawer.sum() == 0 else None


def keeps_every_push(weights, servers, counts, bound, lr, momentum):
    kept, recv = [], dist.recv

    def keeping(tensor, source=None):
        worker = recv(tensor, source)
        kept.append(tensor.clone())
        return worker

    dist.recv = keeping
    return SERVE(weights, servers, counts, bound, lr, momentum)


def cut_badly(size, servers):
    """Where slices begin and end if the last one gets what is left over."""
    return [
        (one * (size // servers), (one + 1) * (size // servers) + size % servers * (one == servers - 1))
        for one in range(servers)
    ]


def uneven_slices(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank, cuts = dist.get_rank(), cut_badly(size, servers)
    if rank < servers:
        return SERVE(initial(*cuts[rank]), servers, counts, bound, lr, momentum)
    parts = [torch.empty(last - first, dtype=torch.float64) for first, last in cuts]
    for batch in range(counts[rank]):
        for pull in [dist.irecv(part, owner) for owner, part in enumerate(parts)]:
            pull.wait()
        pushed = gradient(torch.cat(parts), batch).split([len(part) for part in parts])
        for push in [dist.isend(one, owner) for owner, one in enumerate(pushed)]:
            push.wait()


def workers_help_themselves(initial, size, gradient, servers, counts, bound, lr, momentum):
    if dist.get_rank() >= servers:
        initial(0, size)
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def tells_everyone(weights, servers, counts, bound, lr, momentum):
    """The solution's server, which sends the weights to all workers at each push; a flag says whose pull it answers."""
    velocity, arrived, updates, sent = torch.zeros_like(weights), torch.empty_like(weights), [], []
    clock, waiting = [0] * len(counts), set(range(servers, len(counts)))
    while behind := busy(clock, counts):
        go = {rank for rank in waiting if clock[rank] - bound <= min(behind)}
        waiting -= go
        for rank in range(servers, len(counts)):
            box = torch.cat([weights, torch.tensor([float(rank in go)], dtype=torch.float64)])
            sent.append((dist.isend(box, rank), box))
        worker = dist.recv(arrived)
        velocity.mul_(momentum).add_(arrived)
        weights.sub_(lr * velocity)
        updates.append(worker)
        clock[worker] += 1
        if clock[worker] < counts[worker]:
            waiting.add(worker)
    for one, _ in sent:
        one.wait()
    return weights, updates


def told(size, gradient, servers, counts, rank):
    """The worker for `tells_everyone`: there are as many messages as pushes of all."""
    sizes = [len(one) + 1 for one in torch.tensor_split(torch.empty(size), servers)]
    boxes = [[torch.empty(n, dtype=torch.float64) for _ in range(sum(counts))] for n in sizes]
    pending = [[dist.irecv(box, owner) for box in row] for owner, row in enumerate(boxes)]
    seen = [0] * servers
    for batch in range(counts[rank]):
        parts = []
        for owner in range(servers):
            while True:
                pending[owner][seen[owner]].wait()
                box, seen[owner] = boxes[owner][seen[owner]], seen[owner] + 1
                if box[-1]:
                    break
            parts.append(box[:-1])
        pushed = torch.tensor_split(gradient(torch.cat(parts), batch), servers)
        for push in [dist.isend(one, owner) for owner, one in enumerate(pushed)]:
            push.wait()
    for late in (one for owner, row in enumerate(pending) for one in row[seen[owner] :]):
        late.wait()


def everyone_is_told(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if rank >= servers:
        return told(size, gradient, servers, counts, rank)
    return tells_everyone(initial(*bounds(size, servers, rank)), servers, counts, bound, lr, momentum)


def with_a_barrier(initial, size, gradient, servers, counts, bound, lr, momentum):
    dist.barrier()
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def all_reduced(initial, size, gradient, servers, counts, bound, lr, momentum):
    """The workers meet before each step, as long as all have batches."""
    workers = dist.new_group(list(range(servers, len(counts))))

    def meeting(weights, batch):
        if batch < min(counts[servers:]):
            dist.all_reduce(torch.ones(1), group=workers)
        return gradient(weights, batch)

    return SOLUTION(initial, size, meeting, servers, counts, bound, lr, momentum)


def servers_talk(initial, size, gradient, servers, counts, bound, lr, momentum):
    rank = dist.get_rank()
    if servers > 1 and rank < servers:
        dist.send(torch.ones(3), 1) if rank == 0 else dist.recv(torch.ones(3), 0)
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def order_made_up(initial, size, gradient, servers, counts, bound, lr, momentum):
    result = SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)
    return result and (result[0], sorted(result[1]))


def own_group(initial, size, gradient, servers, counts, bound, lr, momentum):
    group = dist.new_group(backend="gloo")
    for name in ("send", "recv", "isend", "irecv"):
        plain = getattr(dist, name)
        setattr(dist, name, lambda tensor, other=None, plain=plain: plain(tensor, other, group=group))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def recorder_cleared(initial, size, gradient, servers, counts, bound, lr, momentum):
    result = SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)
    recorder().spans.clear()
    return result


def the_reference(initial, size, gradient, servers, counts, bound, lr, momentum):
    return reference.train(initial, counts, torch.optim.SGD, lr=lr, momentum=momentum)


def the_reference_by_stealth(initial, size, gradient, servers, counts, bound, lr, momentum):
    if dist.get_rank() == 0:
        importlib.import_module(".".join(("parallel_lab", "parameter" + "_server")))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


def pytorchs_own(initial, size, gradient, servers, counts, bound, lr, momentum):
    DistributedDataParallel(torch.nn.Linear(1, 1))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


CHEATS = {
    "ignores_the_bound": (ignores_the_bound, "bound 0: before rank 1 had finished its gradient 1, rank 2 had begun"),
    "always_in_step": (
        always_in_step,
        "bound 2: before rank 3 had finished its gradient 1, rank 2 finished 2; the bound allows 4",
    ),
    "one_step_too_strict": (
        one_step_too_strict,
        "bound 2: before rank 3 had finished its gradient 1, rank 2 finished 3; the bound allows 4",
    ),
    "one_step_too_far": (one_step_too_far, "bound 0: before rank 1 had finished its gradient 1, rank 2 had begun"),
    "bound_on_the_fastest": (
        bound_on_the_fastest,
        "bound 0: before rank 1 had finished its gradient 1, rank 2 had begun",
    ),
    "never_finished_counted": (never_finished_counted, "the ranks did not finish"),
    "without_momentum": (without_momentum, "at weights that server 0 never had"),
    "averaged_gradients": (averaged_gradients, "at 3 ranks: rank 1 computed its gradient 1 at weights that server 0"),
    "never_pulls": (never_pulls, "rank 1 computed its gradient 1 at weights without its own gradient 0"),
    "pulls_for_show": (pulls_for_show, "rank 1 computed its gradient 1 at weights without its own gradient 0"),
    "one_batch_for_ever": (one_batch_for_ever, "rank 1 computed gradients of its batches 0, 0, 0, 0; expected 0 to 3"),
    "one_server_for_all": (one_server_for_all, "rank 0, a server, took the weights 0 to 1001; its slice is 0 to 501"),
    "all_on_every_server": (all_on_every_server, "a server, took the weights 0 to 1001; its slice is"),
    "all_in_a_drawer": (all_in_a_drawer, "at 4 ranks: rank 0 held a tensor of 8.008 kB; its slice is 4.008 kB"),
    "keeps_every_push": (with_server(keeps_every_push), "are plenty for its slice"),
    "uneven_slices": (uneven_slices, "rank 0, a server, took the weights 0 to 500; its slice is 0 to 501"),
    "workers_help_themselves": (workers_help_themselves, "rank 1, a worker, called initial(0, 1001)"),
    "everyone_is_told": (everyone_is_told, "at 3 ranks: rank 0 sent rank 1 72.14 kB; 4 pulls of the slice of rank 0"),
    "with_a_barrier": (with_a_barrier, "rank 0 called barrier"),
    "all_reduced": (all_reduced, "rank 1 called all_reduce"),
    "servers_talk": (servers_talk, "at 4 ranks: rank 0 sent rank 1 12 B, server to server"),
    "order_made_up": (order_made_up, "at weights that server 0 never had"),
    "own_group": (own_group, "rank 1 sent rank 0 0 B by messages; 4 pushes of the slice of rank 0 are 32.03 kB"),
    "recorder_cleared": (recorder_cleared, "computed gradients that are not in the trace"),
    "the_reference": (the_reference, "the_reference uses parallel_lab.parameter_server"),
    "the_reference_by_stealth": (the_reference_by_stealth, "rank 0 used parallel_lab.parameter_server, the answer"),
    "pytorchs_own": (pytorchs_own, "pytorchs_own uses torch.nn.parallel"),
}


def failures(cheat):
    """What a check says of a cheat, test by test; nothing further is run once it has been found out."""
    lab = Lab(timeout=3 if cheat is never_finished_counted else 10)
    for test in EXERCISES["parameter_server"].tests:
        try:
            test(cheat, lab)
        except Wrong as wrong:
            yield wrong.seen


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_with_its_message(name):
    cheat, said = CHEATS[name]
    seen = []
    assert any(said in (seen.append(one) or one) for one in failures(cheat)), seen


def test_a_cheat_does_not_pass():
    report = check("parameter_server", ignores_the_bound)
    assert not report.passed
    assert "the bound allows 2" in repr(report)
