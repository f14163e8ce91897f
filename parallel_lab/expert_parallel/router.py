"""From choices to rows: where in what a rank sends each choice of each token stands, and which choices are dropped.

Lepikhin et al. 2020, "GShard", section 2.2 and algorithm 1; Fedus et al. 2021, "Switch Transformers", section 2.2, for
capacity; Gale et al. 2022, "MegaBlocks", section 1, for what is dropless. t tokens with K choices each are t K choices.
Rows stand expert after expert, and an expert's rows in the order of its tokens. So the rows for one rank lie side by
side, and nothing depends on which thread came first.

Dropless, an expert has as many rows as choose it. With capacity it has C rows, whatever the load: rows that nobody
fills are zeros, and choices beyond C are dropped. C counts per expert and per *source*: each rank decides for its own
tokens, without asking. So what is dropped depends on how the batch is cut, as a limit over all ranks' tokens would not.
A dropped choice adds nothing to its token, whose other weights stay as they were; the residual stream carries it on.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from parallel_lab.model.experts import counted, top

Drop = Literal["position", "score"]


class Route(NamedTuple):
    """What a rank sends, row after row.

    Attributes:
        source: for each row the choice that it is for, i K + j for the j-th of token i; t K for a row of zeros. int64.
        counts: the rows of each expert, int64 (E,).
    """

    source: Tensor
    counts: Tensor


def route(chosen: Tensor, weights: Tensor, experts: int, capacity: int | None = None, drop: Drop = "position") -> Route:
    """The route of choices (t, K) among `experts`, and of their weights (t, K).

    With a capacity an expert's rows go to those choices that come first: by position in the batch, or by score, where
    of equal scores the first counts. The same choices are kept on every device.
    """
    expert, loads = chosen.flatten(), counted(chosen, experts)
    choices = torch.arange(expert.numel(), device=expert.device)
    order = top(weights.flatten(), expert.numel()) if drop == "score" else choices
    order = order[expert[order].argsort(stable=True)]  # expert after expert
    if capacity is None:
        return Route(order, loads)
    of_row = expert[order]
    nth = choices - (loads.cumsum(0) - loads)[of_row]  # how many of the same expert stand before
    kept = nth < capacity
    source = torch.full((experts * capacity,), expert.numel(), device=expert.device)
    source[of_row[kept] * capacity + nth[kept]] = order[kept]
    return Route(source, torch.full_like(loads, capacity))


def capacity(tokens: int, experts: int, active: int, factor: float) -> int:
    """C: `factor` times what an expert gets of one rank's `tokens` where all get alike, rounded up."""
    return math.ceil(factor * active * tokens / experts)
