"""Mixed: asynchronous early, synchronous late.

Source: Li et al. 2021, "Sync-Switch: Hybrid Parameter Synchronization for Distributed Deep Learning", who switch the
other way round. Stale gradients can also lead astray early; which order is better is a matter for measurement.

Idea: far from the optimum nearly every direction leads down, and stale gradients do little harm: be asynchronous, and
wait for nobody. Near it their noise keeps the loss up: wait for all. The switch comes after `switch_at` updates of the
server: who pulls from then on computes for a synchronous update.

Guarantee: after the switch that of synchronous SGD, from wherever the first phase has led.
Staleness: as in `asynchronous` before the switch and for gradients that are under way at that moment, at most one of
each worker; less than the number of workers in the first synchronous round, where those come in between; then 0.
Sharded, replicated, bytes, memory and plan: as in `asynchronous`.
A slow rank: nobody waits for it before the switch, all wait for it after.

One learning rate serves both phases, but an asynchronous update holds one worker's gradient and a synchronous one the
mean of all: the sum of n asynchronous steps is n times as long as one synchronous step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parallel_lab.agree.arguments import whole
from parallel_lab.parameter_server.rules import Rule, State


@dataclass(frozen=True)
class Mixed(Rule):
    """The strategy: asynchronous until the server has made `switch_at` updates, then synchronous."""

    switch_at: int  # the version of the switch, from 0

    def __post_init__(self) -> None:
        whole("switch_at", self.switch_at, 0)

    def check(self, workers: int, servers: int) -> None:
        """Looks whether there is one server: several count their own updates, and would not switch together."""
        if servers > 1:
            raise ValueError(f"Mixed(switch_at={self.switch_at}) needs one server, which counts the updates: servers=1")

    def due(self, state: State) -> Sequence[int]:
        """A push of before the switch at once; the others once every live worker has made one."""
        early = [worker for worker in state.held if state.read[worker] < self.switch_at]
        return early[:1] or (state.held if state.all_held() else ())
