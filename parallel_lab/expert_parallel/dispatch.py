"""Tokens travel to the experts that they chose, and come back: two all-to-alls forward, the same two backward.

Lepikhin et al. 2020, "GShard", section 3; Gale et al. 2022, "MegaBlocks", for the dropless form. Experts are too many
for one rank and a token needs few of them, so each rank keeps some experts, and its tokens go where their experts are.
Every rank is a data-parallel rank as well, with its own tokens: it sends (dispatch), computes for all, and sends back
(combine); scores stay at home and weight what comes back, so the router's gradient needs no message.

    sharded                experts, their gradients and moments: E/n a rank; tokens, as in data parallelism
    replicated             router, attention, norms, embedding, head
    sent per rank          dispatch: its choices of foreign experts, h e bytes each; combine: as many rows as it took.
                           Both backward once more: 4 (n-1)/n K t h e a layer where the load is equal. And 8 (n-1)/n E
                           bytes of counts forward. With capacity E C rows each way instead of K t, and 16 (n-1)/n bytes
    held per rank          1/n of the experts; rows of all its experts' tokens, n C an expert with capacity

How many rows come is known to their senders alone. So counts are exchanged first, an all-to-all of E numbers, and the
rows then travel in splits of just that size. With capacity all splits are equal, and ranks agree only on the largest t.
Each kind of exchange has its name in the trace: `counts`, `dispatch`, `combine`.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.collectives import autograd
from parallel_lab.collectives.passes import named
from parallel_lab.expert_parallel.router import Drop, Route, capacity, route
from parallel_lab.trace import tag


class RemoteExperts:
    """Stands in the place of `MixtureOfExperts.mix`: sends tokens (t, h) through experts of all ranks of `group`.

    Args:
        experts: this rank's, by their numbers in the whole model.
        placement: for each rank of the group the numbers of its experts.
        capacity_factor: None to drop nothing.
        drop: who goes first where an expert's rows do not do for all.
        group: the ranks that share the experts.
    """

    def __init__(
        self,
        experts: nn.ModuleDict,
        placement: Sequence[Sequence[int]],
        capacity_factor: float | None,
        drop: Drop,
        group: dist.ProcessGroup,
    ) -> None:
        self.experts, self.placement, self.group = experts, placement, group
        self.capacity_factor = capacity_factor
        self.drop: Drop = drop
        order = [number for numbers in placement for number in numbers]  # rank after rank
        self.place = [order.index(number) for number in range(len(order))]

    def __call__(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Tokens (t, h), choices (t, K) and weights (t, K) to (t, h); t may differ over the ranks, and be 0."""
        place = torch.tensor(self.place, device=chosen.device)
        way = route(place[chosen], weights, len(place), self.limit(tokens, chosen), self.drop)
        arriving = self.arriving(way)
        given = [int(part.sum()) for part in way.counts.split(self.sizes)]
        taken = arriving.sum(1).tolist()
        rows = F.pad(tokens, (0, 0, 0, 1)).index_select(0, way.source // chosen.shape[1])  # one past the end: zeros
        outputs = self.compute(self.exchange("dispatch", rows, given, taken), arriving)
        returned = self.exchange("combine", outputs, taken, given)
        mine = returned.new_zeros(chosen.numel() + 1, tokens.shape[1]).index_copy_(0, way.source, returned)[:-1]
        return (weights.unsqueeze(-1) * mine.view(*chosen.shape, tokens.shape[1])).sum(1).to(tokens.dtype)

    @property
    def sizes(self) -> list[int]:
        """How many experts each rank has."""
        return [len(numbers) for numbers in self.placement]

    def limit(self, tokens: Tensor, chosen: Tensor) -> int | None:
        """C, the same on all ranks: that of the rank with most tokens."""
        if self.capacity_factor is None:
            return None
        most = torch.tensor(len(tokens), device=tokens.device)
        with named(self.group), tag(kind="counts"):
            dist.all_reduce(most, dist.ReduceOp.MAX, self.group)
        return capacity(int(most), len(self.place), chosen.shape[1], self.capacity_factor)

    def arriving(self, way: Route) -> Tensor:
        """How many rows each rank has for each of this rank's experts: int64 (n, experts here)."""
        own = len(self.experts)
        if self.capacity_factor is not None:
            return way.counts[:1].expand(self.group.size(), own)
        taken = way.counts.new_empty(self.group.size() * own)
        with named(self.group), tag(kind="counts"):
            dist.all_to_all_single(taken, way.counts, [own] * self.group.size(), self.sizes, group=self.group)
        return taken.view(-1, own)

    def exchange(self, kind: str, rows: Tensor, given: list[int], taken: list[int]) -> Tensor:
        """`given[r]` rows to rank r, and `taken[r]` from it; ranks with none of either call it as well."""
        with named(self.group), tag(kind=kind):
            return autograd.exchange(rows, given, taken, self.group)

    def compute(self, rows: Tensor, arriving: Tensor) -> Tensor:
        """Rows as they came, rank after rank and expert after expert, through their experts; they keep their order.

        An expert that nobody chose computes on nothing: its gradient is zero, and not missing.
        """
        ranks, own = arriving.shape
        expert = torch.arange(own, device=rows.device).repeat(ranks).repeat_interleave(arriving.flatten())
        order = expert.argsort(stable=True)
        parts = rows.index_select(0, order).split(arriving.sum(0).tolist())
        outputs = torch.cat([expert(part) for expert, part in zip(self.experts.values(), parts, strict=True)])
        return torch.empty_like(outputs).index_copy_(0, order, outputs)
