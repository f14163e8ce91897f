"""What the simulator asks of a cost model: any object with these methods.

The times are a model's, not a machine's: they say what would happen on hardware as described, and a trace made of them
is marked as simulated.
"""

from typing import Protocol

from parallel_lab.plan import Op


class CostModel(Protocol):
    """Seconds and bytes of an op. The other methods are optional; `AlphaBeta` and `Topology` have them.

    - `held(op) -> int`: bytes that the rank holds from the start of `op` on (positive), or gives back when `op` ends
      (negative).
    - `occupancy_s(op) -> float`: how long `op` holds its port; without it, until it has ended.
    - `port(op) -> str`: the port of its rank that `op` holds; without it, its lane. Ops on one port wait for each
      other in the order of the row, ops on different ports do not.
    - `price(op) -> Price`: of a collective, the bytes and messages that its rank sends; without it, none.
    - `meeting(op)`: the same for the ops of all ranks that are one collective. They start together, when the last is
      ready, and end together, when the slowest does.
    - `of_plan(plan) -> CostModel`: the model to use for `plan`, for one that must know how many ranks there are.
    """

    def seconds(self, op: Op) -> float:
        """How long `op` takes, in seconds; for a message, from its start to its arrival."""
        ...

    def bytes(self, op: Op) -> int:
        """The payload of a message or collective, in bytes; 0 for computation."""
        ...
