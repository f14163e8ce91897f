"""The task of chapter 12 on sums: the same rows over several numbers of ranks, and what must be the same bit for bit.

As in `cutting`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from parallel_lab.grading.drivers import from_rank_0, mark
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, name

SUM = ("sum", "sum_over")  # the driver's marks round each call
HALF_ULP = 2.0**-24  # of float32


def rows_to_sum(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """Rows of `shape` in float32, and orders of them, of which rank 0's count.

    The columns differ in size by many powers of two. In every third one each of the first numbers, 1 to 2^60 times as
    large as the others, has its opposite.
    """
    count, width = case["shape"]
    size = 2.0 ** torch.linspace(8, -60, width, dtype=torch.float64)
    rows = torch.randn(count, width, generator=generator, dtype=torch.float64) * size
    third = count // 3
    rows[:third, ::3] *= 2.0 ** (60 * torch.rand(third, len(size[::3]), generator=generator, dtype=torch.float64))
    rows[third : 2 * third, ::3] = -rows[:third, ::3]
    rows = rows.float()
    rows[:, list(case["zeros"])] = 0
    return rows, torch.stack([torch.randperm(count, generator=generator) for _ in range(case["deals"])])


def deals(case: Case, rows: Tensor, orders: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """What each rank of each world has, for each deal: its name, and the rows of rank 0, 1, ..., also none."""
    for world in case.get("worlds") or range(1, case.ranks + 1):
        for number, order in enumerate(orders):
            cuts = [0 if case.get("idle") else (place * len(rows) // world + number) for place in range(1, world)]
            which = f"world {world}, deal {number}"
            yield which, list(rows[order].tensor_split(cuts))  # idle: the last rank has them all


def sum_each(fn: Callable, case: Case, rows: Tensor, orders: Tensor) -> dict:
    """`fn(rows, group)` for each deal to the first so many ranks; what it returned, by deal."""
    rows, orders = from_rank_0([rows, orders])
    rank, seen = dist.get_rank(), {}
    dealt = list(deals(case, rows, orders))
    groups = {world: dist.new_group(list(range(world))) for world in sorted({len(parts) for _, parts in dealt})}
    for deal, parts in dealt:
        if rank < len(parts):
            mark(SUM[0])
            seen[deal] = fn(parts[rank].clone(), groups[len(parts)])
            mark(SUM[1])
    return seen


@functools.lru_cache(maxsize=8)
def _exact(rows: bytes, width: int) -> Tensor:
    """The sum of each column of float64 numbers, rounded once."""
    columns = torch.frombuffer(bytearray(rows), dtype=torch.float64).view(-1, width).T.tolist()
    return torch.tensor([math.fsum(column) for column in columns], dtype=torch.float64)


def _returned(outcome: Outcome) -> Iterator[tuple[str, Tensor]]:
    """Each sum, and whose it is; Wrong if it is none."""
    shape = outcome.inputs[0][0].shape[1:]
    for rank, results in enumerate(outcome.results):
        for deal, got in results.items():
            if type(got) is not Tensor or got.dtype != torch.float32 or got.shape != shape:
                expected = f"a torch.float32 tensor of shape {tuple(shape)}"
                raise Wrong(f"{outcome.at}: rank {rank}, {deal}: got {name(got)}, expected {expected}")
            yield f"rank {rank}, {deal}", got


@grader
def near(outcome: Outcome, advice: dict[str, str]) -> None:
    """Each sum is as near to the exact one as any order of additions in float32 is bound to be: rows u Σ |term|.

    `advice` is for what is not finite, for what is `lost` in small columns, and for other errors.
    """
    rows = outcome.inputs[0][0].double()
    exact = _exact(rows.numpy().tobytes(), rows.shape[1])
    bound, largest = len(rows) * HALF_ULP * rows.abs().sum(0), rows.abs().amax(0)
    for whose, got in _returned(outcome):
        wrong = ((got.double() - exact).abs() <= bound).logical_not().nonzero()[:, 0].tolist()
        if wrong:
            column = max(wrong, key=lambda place: (not bool(got[place].isfinite()), largest[place]))
            kind = "finite" if not bool(got[column].isfinite()) else "lost" if not got[column] else "wrong"
            seen = f"{outcome.at}: {whose}: column {column} is {got[column]:.6g}, the sum is {exact[column]:.6g}"
            raise Wrong(f"{seen}, of numbers up to {largest[column]:.2g}; {len(wrong)} columns are wrong", advice[kind])


@grader
def same_bits(outcome: Outcome, advice: str) -> None:
    """Every rank has the same bits, in every world and for every deal of the rows."""
    (first, right), *others = _returned(outcome)
    for whose, got in others:
        unlike = (got.view(torch.int32) != right.view(torch.int32)).nonzero()[:, 0].tolist()
        if unlike:
            column = unlike[0]
            one, other = (f"{each[column].item():.9g}" for each in (right, got))
            seen = f"{outcome.at}: column {column} is {one} on {first}, and {other} on {whose}"
            raise Wrong(f"{seen}; {len(unlike)} of {len(got)} columns differ", advice)
