"""Partially synchronous SGD: the first `k` of n gradients count, the others are backups.

Source: Chen et al. 2016, "Revisiting Distributed Synchronous SGD", section 3.

Idea: all n workers compute a gradient at the same weights. As soon as `k` of them have arrived, their mean is the
update, and all workers go on with the new weights. A gradient of older weights that comes later is dropped.

Guarantee: synchronous SGD on `k` batches: what counts is never stale. But whoever is always late never counts: if speed
goes with data (one worker, one kind of data), the model does not see the slow worker's data at all.
Staleness: 0 for what counts; what is dropped has its own count (`Record.updates`).
Sharded, replicated, bytes, memory and plan: as in `asynchronous`; dropped gradients travel too.
A slow rank: with n - `k` or fewer of them, nobody waits for it, and its work is lost. With more, all wait for the
`k`-th.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.rules import Rule, State


@dataclass(frozen=True)
class Partial(Rule):
    """The strategy: an update is the mean of the first `k` pushes of a version, or of all where fewer workers live."""

    k: int  # N in the paper, from 1

    def __post_init__(self) -> None:
        whole("k", self.k, 1)

    def check(self, workers: int, servers: int) -> None:
        """Looks whether there are `k` workers; see `Rule.check`."""
        if self.k > workers:
            raise ValueError(f"Partial(k={self.k}) waits for {self.k} pushes and there are {workers} workers: lower k")

    def admits(self, state: State, read: int) -> bool:
        """Unless it was computed from an older version than the present one."""
        return read == state.version

    def due(self, state: State) -> Sequence[int]:
        """All that are held, once these are `k`, or one of every live worker."""
        return state.held if len(state.held) >= self.k or state.all_held() else ()
