"""What metrics exchange: sums of counts, or rows of which each rank has another number.

A metric over ranks is a statistic of each rank's samples, an exchange, and a score of what was exchanged. Where the
statistics of two sets add up to that of both, a sum is enough, and its bytes do not grow with the samples:

| exchange | bytes that a rank sends, n ranks                           | for                                        |
|----------|------------------------------------------------------------|--------------------------------------------|
| `merge`  | 2 S (n-1)/n, S the bytes of the statistic                  | accuracy, F1, BLEU, chrF, ROUGE, loss, ECE |
| `gather` | 8 (n-1) for the lengths, then all rows but one rank's      | ROC, AUC, medians                          |

Counts are int64. A float16 stops counting at 2^11, a bfloat16 at 2^8, a float32 at 2^24: there 1 more is rounded away.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.collectives import all_reduce, plan_for
from parallel_lab.collectives.execute import execute_chunks
from parallel_lab.runtime.group import member

WIDE = (torch.int64, torch.float64)


def merge(counts: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The sum of all ranks' `counts`, a new tensor on every rank; a rank without samples gives zeros.

    Raises:
        ValueError: the dtype is neither int64 nor float64, so that large counts would be rounded.
    """
    if counts.dtype not in WIDE:
        raise ValueError(f"counts in {counts.dtype} are rounded where they grow large: count in int64 or float64")
    return all_reduce(counts.detach().clone(memory_format=torch.contiguous_format), group)


def lengths(rows: int, device: torch.device, group: dist.ProcessGroup | None = None) -> list[int]:
    """How many rows each rank has."""
    group = member(group)
    found = torch.zeros(group.size(), dtype=torch.int64, device=device)
    found[group.rank()] = rows
    _around(list(found), group)
    return found.tolist()


def gather(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all ranks, one rank's after another's; ranks may have different numbers of them, and none.

    Nothing is padded: the parts go round a ring, each as long as it is.
    """
    group = member(group)
    counts = lengths(len(rows), rows.device, group)
    gathered = rows.new_empty((sum(counts), *rows.shape[1:]))
    parts = gathered.split(counts)
    parts[group.rank()].copy_(rows.detach())
    _around(list(parts), group)
    return gathered


def _around(parts: list[Tensor], group: dist.ProcessGroup) -> None:
    """Fills in the parts of the other ranks: a ring in which part r is rank r's."""
    execute_chunks(plan_for("all_gather", "ring", group.size()), [part.view(-1) for part in parts], group)
