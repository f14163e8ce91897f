"""Stale-synchronous SGD (SSP, stale synchronous parallel): asynchronous, on a leash.

Source: Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", section 2.

Idea: each worker counts its gradients: its clock. Pushes are applied at once, as in asynchronous SGD, but a worker that
is more than `bound` ahead of the slowest one has to wait before its next pull. Short delays cost nothing, and no
gradient can be arbitrarily stale.

Guarantee: for convex losses the regret of SGD up to a factor that grows with the square root of (bound + 1) times the
number of workers. The bound on staleness holds always.
Staleness: at most (n - 1) (2 bound + 1) updates with n workers; `Stale.staleness_bound` says why.
Sharded, replicated, bytes, memory and plan: as in `asynchronous`.
A slow rank: the others run ahead by `bound` steps and then go at its pace. A bound of 0 keeps all on the same step;
each push is an update of its own. With plain SGD, if all pull before the first push, that is synchronous SGD at n
times the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.rules import Rule, State


@dataclass(frozen=True)
class Stale(Rule):
    """The strategy: a worker that pulls is at most `bound` clocks ahead of the slowest live one."""

    bound: int  # the c of SSP, from 0

    def __post_init__(self) -> None:
        whole("bound", self.bound, 0)

    def due(self, state: State) -> Sequence[int]:
        """The first push, as soon as there is one."""
        return state.held[:1]

    def may_pull(self, state: State, worker: int) -> bool:
        """Unless the worker is more than `bound` clocks ahead."""
        return state.clocks[worker] - state.slowest() <= self.bound

    def staleness_bound(self, workers: int) -> int:
        """The most updates that a push can miss: (workers - 1) (2 bound + 1).

        Take a worker that pulls for its step i. Each other worker is at clock i - bound at least, or this one would
        have to wait. While this one works on step i, no other one gets beyond clock i + bound + 1: i + bound is the
        last step that the rule lets it start. So each other worker makes at most 2 bound + 1 updates meanwhile.
        """
        return (workers - 1) * (2 * self.bound + 1)
