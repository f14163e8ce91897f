"""What a wrong sum is made of: how often each rank's numbers are in each chunk, and the usual mistake behind that.

It is asked of sums that are built from messages, as by a ring: whole tensors go round, or chunks.
"""

from itertools import product

import torch
from torch import Tensor

from parallel_lab.grading.trial import Outcome

FIRST_HALF = (
    "In the first half each round adds what comes in to the chunk of the same number. Which chunk is finished on "
    "rank r after n - 1 rounds? With that one the second half begins."
)
SECOND_HALF = "look at the second half. Which finished chunk does a rank send on in each of its n - 1 rounds?"
SAME_NUMBER = "A chunk keeps its number: put what comes in where the rank that sent it had it."
REPLACES = "What comes in the second half is finished: it takes the place of the chunk, and is not added to it."


def mistake_in_sum(outcome: Outcome, rank: int) -> str:
    """What is wrong with the sum that `rank` returned; empty if it is none of the usual mistakes."""
    if (counts := counted(outcome)) is None:
        return ""
    n = outcome.ranks
    own = torch.stack([counts[:, chunk, chunk] for chunk in range(n)], 1)  # of (rank, chunk, source)
    if n == 1:
        times = f"Your own tensor is counted {int(own)} times: one rank alone has nothing to add."
        return f"{times} How many rounds are there at n ranks?" if int(own) > 1 else ""
    if counts.sum() > own.sum():
        return _displaced(counts[rank])
    return _whole(own[rank, 0].tolist(), rank) if bool((own == own[:, :1]).all()) else _chunks(own, rank)


def counted(outcome: Outcome) -> Tensor | None:
    """As [rank, i, j, source]: how often chunk j of a source is in chunk i of a rank's result; None where not known.

    The random inputs of the ranks are independent, so there is one answer, if there is one.
    """
    n, given = outcome.ranks, [leaf for (leaf,) in outcome.inputs]
    like = all(isinstance(got, Tensor) and got.shape == given[0].shape for got in outcome.results)
    if not like or given[0].numel() % n or given[0].numel() // n < 2 * n * n:
        return None
    cut = torch.stack([one.double().reshape(n, -1) for one in given], 1).flatten(0, 1).T  # a column of (j, source)
    got = torch.cat([one.double().reshape(n, -1) for one in outcome.results]).T  # a column of (rank, i)
    if not bool(got.isfinite().all()):
        return None
    found = torch.linalg.lstsq(cut, got).solution.round()
    if not bool(torch.isclose(cut @ found, got, atol=1e-8).all()) or bool((found < 0).any()):
        return None
    return found.T.reshape(n, n, n, n).int()


def _displaced(counts: Tensor) -> str:
    """Of one rank's [chunk, chunk of the source, source], if a chunk has what belongs in another."""
    n = len(counts)
    found = ((i, j) for i, j in product(range(n), range(n)) if i != j and bool(counts[i, j].any()))
    return next((f"In chunk {i} there is what belongs in chunk {j}. {SAME_NUMBER}" for i, j in found), SAME_NUMBER)


def _whole(counts: list[int], rank: int) -> str:
    """Of whole tensors that went round: how often each rank's is in the sum of `rank`."""
    others = [count for other, count in enumerate(counts) if other != rank]
    most = counts.index(max(counts))
    if not counts[rank] and sum(counts) == 1:
        return "What came in took the place of the sum: add it to what is there."
    if counts[rank] > 1 and not any(others):
        return "Your own tensor was added in place of what came in: add what was received, after wait()."
    if counts[rank] > 1 and set(others) == {1}:
        return "Your own tensor came round to you and was added again: how many rounds bring those of the others?"
    if all(counts) and max(counts) > 1:
        return f"The tensor of rank {most} is counted {max(counts)} times: pass on what came in, not the sum so far."
    if counts[rank] == 1 and max(others) > 1:
        return f"The tensor of rank {most} came in again and again: pass on what came in, and not your own each time."
    if counts[rank] == 1 and 0 in others and any(others):
        return f"The tensor of rank {counts.index(0)} never came: how many rounds are there until all have come?"
    return ""


def _chunks(counts: Tensor, rank: int) -> str:
    """Of chunks that went round: how often each source is in each chunk, as [rank, chunk, source]."""
    if bool(((counts[rank] > 1).any(1) & (counts[rank] > 0).all(1)).any()):
        return REPLACES
    finished = (counts == 1).all(2).any(0)
    if bool(finished.all()):
        return f"The sum of each chunk is finished on some rank, and not on all: {SECOND_HALF}"
    return f"No rank has the whole sum of chunk {finished.tolist().index(False)}. {FIRST_HALF}"
