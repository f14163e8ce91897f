"""Asynchronous SGD (ASP, asynchronous parallel) through a server: nobody waits for anybody.

Source: Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1 (Downpour SGD).

Idea: each worker pulls the weights, computes a gradient and pushes it. The server applies each push at once, as an
update of its own, and answers each pull at once. By the time a gradient arrives, the weights have moved on: it is
*stale*, computed at weights that are no longer there.

Guarantee: none in general; for smooth losses it converges if the staleness is bounded and the learning rate is small
enough for it (Lian et al. 2015, "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization").
Staleness: n - 1 with n equally fast workers; a worker that takes 3 times as long as the others sees about 3 (n - 1).
Sharded: the batch, and over several servers weights and optimizer state. Replicated: weights on each worker.
Bytes per step: N numbers up and N down for a worker; a server sends its shard to each worker.
Memory: a worker holds weights and gradients; a server its shard of weights and optimizer state, and two buffers for
each worker.
A slow rank: nobody waits for it; its gradients are the stalest. With steps counted for each worker, it ends last.

A gradient is one worker's, not a mean over workers: n workers make n small updates where synchronous SGD makes one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parallel_lab.parameter_server.rules import Rule, State, Update
from parallel_lab.parameter_server.wire import plan_of
from parallel_lab.plan import Plan


def plan(updates: Iterable[Update], *, workers: int | None = None, axis: str = "") -> Plan:
    """What one server and its workers do where events come in the order of `updates`, and all workers then finish.

    The order is that of a real run (`Record.updates`) or of virtual time (`virtual.schedule`), under any rule. Between
    two updates of the server, messages of different workers may change places. By default there are as many workers as
    occur; worker i is rank i + 1.
    """
    updates = list(updates)
    return plan_of(updates, workers or 1 + max(update.worker for update in updates), 1, finish=True, axis=axis)


@dataclass(frozen=True)
class Asynchronous(Rule):
    """The strategy: each push is an update of its own, and nobody waits."""

    def due(self, state: State) -> Sequence[int]:
        """The first push, as soon as there is one."""
        return state.held[:1]

    def may_pull(self, state: State, worker: int) -> bool:
        """Always."""
        return True
