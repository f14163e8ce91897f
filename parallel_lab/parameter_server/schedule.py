"""One synchronous step through parameter servers, as a plan."""

from parallel_lab.agree.arguments import whole
from parallel_lab.plan import Op, Plan
from parallel_lab.plan.op import recv, send


def place(worker: int, server: int, servers: int) -> tuple[int, int]:
    """Where `worker` comes among those whom `server` answers: in groups of as many as there are servers."""
    return worker // servers, (worker - server) % servers


def asked(worker: int, servers: int) -> list[int]:
    """The servers in the order in which `worker` turns to them: each of a group begins with another one."""
    return [(worker - k) % servers for k in range(servers)]


def plan(workers: int, servers: int, step: int = 0) -> Plan:
    """Pull, forward, backward, push, update: ranks 0 to `servers` - 1 serve, the others work; `part` is the shard.

    Requests are left out. Workers are served in groups of as many as there are servers, each by another server at a
    time, so that no two messages queue where another link is idle. TypeError or ValueError if a count is no whole
    number above 0.
    """
    whole("workers", workers)
    whole("servers", servers)
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for server in range(servers):
        order = [servers + worker for worker in sorted(range(workers), key=lambda w: place(w, server, servers))]
        pushes = [recv(server, rank, server, step) for rank in order]
        update = Op(server, "update", server, step)
        ops += [send(server, rank, server, step) for rank in order] + [*pushes, update]
        needs[update] = pushes
    for worker in range(workers):
        rank, order = servers + worker, asked(worker, servers)
        forward, backward = Op(rank, "F", 0, step), Op(rank, "B", 0, step)
        pulls = [recv(rank, server, server, step) for server in order]
        pushes = [send(rank, server, server, step) for server in order]
        ops += [*pulls, forward, backward, *pushes]
        needs |= {forward: pulls} | {push: [backward] for push in pushes}
    return Plan.of(ops, needs, ranks=workers + servers)
