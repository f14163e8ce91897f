"""Asynchronous SGD (ASP, asynchronous parallel) through a server: nobody waits for anybody.

Source: Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1 (Downpour SGD).

Idea: each worker pulls the weights, computes a gradient and pushes it. The server applies each push at once, as an
update of its own, and answers each pull at once. By the time a gradient arrives, the weights have moved on: it is
*stale*, computed at weights that are no longer there.

Guarantee: none in general; for smooth losses it converges if the staleness is bounded and the learning rate is small
enough for it (Lian et al. 2015, "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", theorem 1).
Staleness: n - 1 with n equally fast workers; a worker that is k times slower than the others sees about k (n - 1).
Sharded: the batch, and over several servers weights and optimizer state. Replicated: weights on each worker.
Bytes per step: P numbers up and P down for a worker; a server sends its shard to each worker.
Memory: a worker holds weights and gradients; a server its shard of weights and optimizer state, and two buffers for
each worker.
A slow rank: nobody waits for it; its gradients are the stalest. With steps counted for each worker, it ends last.

A gradient is one worker's, not a mean over workers: n workers make n small updates where synchronous SGD makes one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parallel_lab.parameter_server.rules import Rule, State
from parallel_lab.plan import RECV, SEND, Op, Plan
from parallel_lab.synchronization.record import Update

SERVER = 0  # the rank of the server; worker w is rank w + 1


def plan(updates: Iterable[Update], workers: int | None = None) -> Plan:
    """What one server and its workers do where events come in the order of `updates`, and all workers then finish.

    The order is that of a real run (`Record.updates`) or of virtual time (`virtual.schedule`), under any rule. A row of
    a worker is the order in which it issues. The server serves each worker in the order of that worker's row, and the
    updates come in this order; between two updates, messages of different workers may change places.

    Args:
        updates: the fate of each gradient, in the order of use.
        workers: how many; by default those that occur.
    """
    updates = list(updates)
    workers = workers or 1 + max(update.worker for update in updates)
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for version in range(1 + max(update.version for update in updates)):
        for update in (u for u in updates if u.read_version == version):
            ops += _exchange(update.worker, update.step, version, needs)
        used = [_push(u.worker, u.step, RECV) for u in updates if u.version == version + 1 and not u.dropped]
        if used:
            ops.append(Op(SERVER, "update", 0, version, phase="step"))
            needs[ops[-1]] = used
    for worker in range(workers):
        done = sum(update.worker == worker for update in updates)
        ops += _exchange(worker, done, None, needs)
        needs[_answer(worker, done, SEND)] = [_push(u.worker, u.step, RECV) for u in updates]
    return Plan.of(ops, needs, ranks=1 + workers)


def _exchange(worker: int, k: int, version: int | None, needs: dict[Op, list[Op]]) -> list[Op]:
    """A worker pulls a version, computes and pushes its gradient number k; without a version it only pulls."""
    rank = worker + 1
    ask = Op(rank, "ask", 0, k, SERVER, SEND, phase="forward")
    asked = Op(SERVER, "ask", 0, k, rank, RECV, phase="forward")
    pulled = _answer(worker, k, RECV)
    needs[asked] = [ask]
    if version is None:
        return [ask, asked, _answer(worker, k, SEND), pulled]
    forward, backward, push = Op(rank, "F", 0, k), Op(rank, "B", 0, k), _push(worker, k, SEND)
    needs |= {forward: [pulled], backward: [forward], push: [backward]}
    needs[_answer(worker, k, SEND)] = [Op(SERVER, "update", 0, version - 1, phase="step")] if version else []
    return [ask, asked, _answer(worker, k, SEND), pulled, forward, backward, push, _push(worker, k, RECV)]


def _answer(worker: int, k: int, lane: str) -> Op:
    """The parameters on their way to a worker, seen from the server (`send`) or from the worker (`recv`)."""
    here, there = (SERVER, worker + 1) if lane == SEND else (worker + 1, SERVER)
    return Op(here, lane, 0, k, there, lane, phase="forward")


def _push(worker: int, k: int, lane: str) -> Op:
    """A gradient on its way to the server, seen from the worker (`send`) or from the server (`recv`)."""
    here, there = (worker + 1, SERVER) if lane == SEND else (SERVER, worker + 1)
    return Op(here, lane, 0, k, there, lane, phase="backward")


@dataclass(frozen=True)
class Asynchronous(Rule):
    """The strategy: each push is an update of its own, and nobody waits."""

    def due(self, state: State) -> Sequence[int]:
        """The first push, as soon as there is one."""
        return state.held[:1]

    def may_pull(self, state: State, worker: int) -> bool:
        """Always."""
        return True
