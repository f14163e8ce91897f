"""The last batch of an evaluation: samples that the ranks do not divide by.

Three ways to deal samples out to n ranks, and what each makes of the score:

| way     | what it does                                     | samples that count        | batches of the ranks |
|---------|--------------------------------------------------|---------------------------|----------------------|
| padded  | repeats the first samples, `DistributedSampler`  | n ceil(samples/n)         | equally many         |
| dropped | leaves the last out, `drop_last=True`            | n floor(samples/n)        | equally many         |
| exact   | gives some ranks one sample more                 | all, once                 | may differ           |

Padding is made for training, where each rank must take part in each step. In an evaluation it changes the score: ten
samples on four ranks count twelve. Two cures keep the padded shares: `weights` counts a repeated sample 0 times, and
`in_order` puts what was gathered back into the order of the data set and cuts off what was repeated.

With exact shares the ranks may have different numbers of batches. A metric that is all-reduced after every batch then
hangs: the rank that has no batch left never joins (`mean_by_batch`). Summing up locally and all-reducing once costs
fewer messages and cannot hang (`mean_at_end`), as long as a rank without samples takes part with zeros.
"""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler, TensorDataset

from parallel_lab.data_parallel import ShardedSampler
from parallel_lab.runtime.group import member

Way = Literal["padded", "dropped", "exact"]
WAYS: tuple[Way, ...] = ("padded", "dropped", "exact")


def shares(samples: int, ranks: int, way: Way) -> list[list[int]]:
    """Which samples each rank evaluates, in the order of the data set.

    Raises:
        ValueError: there is no such way.
    """
    if way not in WAYS:
        raise ValueError(f"way={way!r}: expected one of {', '.join(WAYS)}")
    return [_share(samples, rank, ranks, way) for rank in range(ranks)]


def _share(samples: int, rank: int, ranks: int, way: Way) -> list[int]:
    if way == "exact":
        return list(ShardedSampler(samples, rank=rank, ranks=ranks, shuffle=False, allow_empty=True))
    dropped = way == "dropped"
    return list(DistributedSampler(TensorDataset(torch.arange(samples)), ranks, rank, shuffle=False, drop_last=dropped))


def weights(samples: int, rank: int, ranks: int) -> Tensor:
    """How often each sample of a rank's padded share counts, float64: 1, and 0 where it repeats another.

    It holds for `DistributedSampler` with and without `shuffle`: place i of a rank is place rank + i n of the order.
    """
    places = rank + ranks * torch.arange(-(-samples // ranks))
    return (places < samples).double()


def in_order(gathered: Tensor, samples: int, ranks: int) -> Tensor:
    """The results of all samples once, in the sampler's order, from those of all padded shares, rank after rank."""
    return gathered.view(ranks, -1, *gathered.shape[1:]).transpose(0, 1).flatten(0, 1)[:samples]


def mean_by_batch(values: Tensor, batch: int, group: dist.ProcessGroup | None = None) -> float:
    """The mean of all ranks' `values`, by an all-reduce of (sum, count) after each batch.

    It hangs where ranks have different numbers of batches.
    """
    totals = torch.stack([_all_reduced(some, group) for some in values.split(batch)]).sum(0)
    return float(totals[0] / totals[1])


def mean_at_end(values: Tensor, group: dist.ProcessGroup | None = None) -> float:
    """The mean of all ranks' `values`, by one all-reduce of (sum, count); a rank may have none.

    Raises:
        ValueError: no rank has a value.
    """
    total, count = _all_reduced(values, group)
    if not count:
        raise ValueError("no rank has a value: there is no mean")
    return float(total / count)


def mean_with_batches_agreed(values: Tensor, batch: int, group: dist.ProcessGroup | None = None) -> float:
    """As `mean_by_batch`, for metrics that must be exchanged as they arise: first agree on the number of batches.

    A rank that has no batch left joins with zeros.
    """
    own = list(values.split(batch)) if len(values) else []
    most = torch.tensor(len(own), device=values.device)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=member(group))
    own += [values[:0]] * (int(most) - len(own))
    totals = torch.stack([_all_reduced(some, group) for some in own]).sum(0)
    return float(totals[0] / totals[1])


def _all_reduced(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    both = torch.stack([values.double().sum(), values.new_tensor(len(values), dtype=torch.float64)])
    dist.all_reduce(both, group=member(group))
    return both
