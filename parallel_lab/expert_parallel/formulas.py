"""What expert parallelism sends and holds, in closed form; the tests hold each against a recorded run.

n ranks share E experts, t tokens a rank, K choices a token, h width, e bytes a number, C the capacity. Bytes are those
that one rank sends. Where the load matters it is a matrix: `load[r][i]` is how many tokens of rank r chose expert i.

Source: Lepikhin et al. 2020, "GShard", sections 2.2 and 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

from parallel_lab.expert_parallel.router import capacity
from parallel_lab.model import formulas
from parallel_lab.model.config import GPTConfig

COUNT_BYTES = 8  # int64
Load = Sequence[Sequence[int]]  # by rank and expert


class Passes(NamedTuple):
    """Bytes that a rank sends in the forward pass and in the backward pass."""

    forward: float
    backward: float


def counts_bytes(experts: int, n: int) -> float:
    """An all-to-all of E counts: 8 (n-1)/n E."""
    return COUNT_BYTES * experts * (n - 1) / n


def layer_bytes(load: Load, row_bytes: int, rank: int) -> Passes:
    """One mixture, dropless, experts cut evenly: what `rank` sends, from the load of all ranks.

    Forward it sends its choices of foreign experts and returns what it took of others; backward the same two change
    places. Over the ranks both sum to the same, on one rank they need not.
    """
    n, experts = len(load), len(load[0])
    own = range(rank * experts // n, (rank + 1) * experts // n)
    sent = sum(count for expert, count in enumerate(load[rank]) if expert not in own)
    returned = sum(load[other][expert] for other in range(n) if other != rank for expert in own)
    both = (sent + returned) * row_bytes
    return Passes(both + counts_bytes(experts, n), both)


def balanced_layer_bytes(tokens: int, active: int, experts: int, row_bytes: int, n: int) -> Passes:
    """The same where every expert gets as much of each rank: 2 (n-1)/n K t h e each way, and the counts forward."""
    both = 2 * (n - 1) / n * active * tokens * row_bytes
    return Passes(both + counts_bytes(experts, n), both)


def capacity_layer_bytes(tokens: int, active: int, experts: int, row_bytes: int, n: int, factor: float) -> Passes:
    """With capacity, whatever the load: 2 (n-1)/n E C h e each way, and 16 (n-1)/n forward, the agreement on t."""
    both = 2 * (n - 1) / n * experts * capacity(tokens, experts, active, factor) * row_bytes
    return Passes(both + 2 * COUNT_BYTES * (n - 1) / n, both)


def gathered_layer_bytes(tokens: int, row_bytes: int, n: int) -> Passes:
    """What it would send to gather all tokens on all ranks and reduce-scatter the outputs: 2 (n-1) t h e each way.

    That is n/K times a balanced exchange: less where a token goes to as many experts as there are ranks.
    """
    return Passes(*[2 * (n - 1) * tokens * row_bytes] * 2)


def imbalance(load: Sequence[float]) -> float:
    """The largest load over the mean: what the slowest takes of the time that all would take alike."""
    return max(load) * len(load) / sum(load)


def dropped(load: Load, active: int, factor: float) -> int:
    """How many choices have no place, where every rank has equally many tokens and drops its own."""
    tokens = sum(load[0]) // active
    limit = capacity(tokens, len(load[0]), active, factor)
    return sum(max(0, count - limit) for row in load for count in row)


def parameters(config: GPTConfig, n: int) -> int:
    """What a rank holds of `GPT(config)`: all but (n-1)/n of the experts."""
    experts = config.layers * config.experts * expert_parameters(config)
    return formulas.parameter_count(config) - experts + experts // n


def expert_parameters(config: GPTConfig) -> int:
    """One expert of one block, biases included."""
    biases = config.width + (2 if config.gated else 1) * config.hidden_width if config.bias else 0
    return formulas.feed_forward_parameters(config) + biases
