"""`parameter_server`: who holds or sends more than its slice fails with its own message."""

import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_one_says
from server_parts import SERVE, SOLUTION, WORK, bounds, busy, with_server

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


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
    pulls = [dist.irecv(part, owner) for owner, part in enumerate(parts)]
    for batch in range(counts[rank]):
        for pull in pulls:
            pull.wait()
        pushed = gradient(torch.cat(parts), batch).split([len(part) for part in parts])
        pushes = [dist.isend(one, owner) for owner, one in enumerate(pushed)]
        if batch + 1 < counts[rank]:  # before it waits: a server may answer one worker while another pushes
            pulls = [dist.irecv(part, owner) for owner, part in enumerate(parts)]
        for push in pushes:
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


def own_group(initial, size, gradient, servers, counts, bound, lr, momentum):
    group = dist.new_group(backend="gloo")
    for name in ("send", "recv", "isend", "irecv"):
        plain = getattr(dist, name)
        setattr(dist, name, lambda tensor, other=None, plain=plain: plain(tensor, other, group=group))
    return SOLUTION(initial, size, gradient, servers, counts, bound, lr, momentum)


CHEATS = {
    "one_server_for_all": (one_server_for_all, "rank 0, a server, took the weights 0 to 1001; its slice is 0 to 501"),
    "all_on_every_server": (all_on_every_server, "a server, took the weights 0 to 1001; its slice is"),
    "all_in_a_drawer": (all_in_a_drawer, "at 4 ranks: rank 0 held a tensor of 8,008 B; its slice is 4,008 B"),
    "keeps_every_push": (with_server(keeps_every_push), "are plenty for its slice"),
    "uneven_slices": (uneven_slices, "rank 0, a server, took the weights 0 to 500; its slice is 0 to 501"),
    "workers_help_themselves": (workers_help_themselves, "rank 1, a worker, called initial(0, 1001)"),
    "everyone_is_told": (everyone_is_told, "at 3 ranks: rank 0 sent rank 1 72.1 kB; 4 pulls of the slice of rank 0"),
    "own_group": (own_group, "rank 1 sent rank 0 0 B by messages; 4 pushes of the slice of rank 0 are 32.0 kB"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_fails_with_its_message(name):
    assert_one_says("parameter_server", *CHEATS[name])
