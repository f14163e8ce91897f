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

The worker's loop is `train._work`, the server's is `parameter_server.server`; the strategy is what the server asks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parallel_lab.parameter_server.rules import Rule, State, Update
from parallel_lab.parameter_server.wire import Exchange
from parallel_lab.plan import Op, Plan

SERVER = 0  # the rank of the server; worker w is rank w + 1


def plan(updates: Iterable[Update], *, workers: int | None = None, axis: str = "") -> Plan:
    """What one server and its workers do where events come in the order of `updates`, and all workers then finish.

    The order is that of a real run (`Record.updates`) or of virtual time (`virtual.schedule`), under any rule. The row
    of a worker is the order in which it issues. The server serves each worker in the order of that worker's row, and
    the updates come in this order; between two updates, messages of different workers may change places.

    By default there are as many workers as occur.
    """
    updates = list(updates)
    workers = workers or 1 + max(update.worker for update in updates)
    turns = {update: Exchange.of(update.worker + 1, SERVER, update.step, axis) for update in updates}
    ops: list[Op] = []
    needs: dict[Op, list[Op]] = {}
    for version in range(1 + max(update.version for update in updates)):
        before = [Op(SERVER, "update", 0, version - 1, phase="step")] if version else []
        for update, (ask, answer, push) in turns.items():
            if update.read_version == version:
                forward, backward = (Op(update.worker + 1, kind, 0, update.step) for kind in "FB")
                ops += [*ask, *answer, forward, backward, *push]
                needs |= {ask[1]: [ask[0]], answer[0]: before}
                needs |= {forward: [answer[1]], backward: [forward], push[0]: [backward]}
        if used := [turn.push[1] for u, turn in turns.items() if u.version == version + 1 and not u.dropped]:
            ops.append(Op(SERVER, "update", 0, version, phase="step"))
            needs[ops[-1]] = used
    for worker in range(workers):
        steps = sum(update.worker == worker for update in updates)
        ask, answer, _ = Exchange.of(worker + 1, SERVER, steps, axis)
        ops += [*ask, *answer]
        needs |= {ask[1]: [ask[0]], answer[0]: [turn.push[1] for turn in turns.values()]}
    return Plan.of(ops, needs, ranks=1 + workers)


@dataclass(frozen=True)
class Asynchronous(Rule):
    """The strategy: each push is an update of its own, and nobody waits."""

    def due(self, state: State) -> Sequence[int]:
        """The first push, as soon as there is one."""
        return state.held[:1]

    def may_pull(self, state: State, worker: int) -> bool:
        """Always."""
        return True
