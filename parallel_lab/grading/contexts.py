"""Chapter 10: attention over ranks that share a sequence; what a rank runs, and what one process gives.

As in `drivers`, the driver gives learner code what it works on, and observes. Ranks import this module.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from parallel_lab.grading.drivers import Moments, mark
from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, change_first_arrival

FORWARD, BACKWARD = ("the forward pass", "forward_over"), ("the backward pass", "backward_over")
OUTPUT, GRADIENT, BLOCK = "its part of the output", "its part of the gradient of", "block"


def block(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax over the keys of one block: the mean of the values, and the log-sum-exp of the scores of each query.

    `visible` is (queries, keys), true where a query sees a key; None for everywhere. As in most kernels, a query that
    sees no key gets a mean of NaN, and a log-sum-exp of -inf.
    """
    scores = _scores(query, key, visible)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def block_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """This block's part of the gradients of query, key and value.

    A weight is exp(score - lse), so with the `out` and `lse` of all blocks it is the weight among all keys.
    """
    weights = (_scores(query, key, visible) - lse.unsqueeze(-1)).exp()
    of_scores = weights * (grad @ value.mT - (grad * out).sum(-1, keepdim=True)) / query.shape[-1] ** 0.5
    return of_scores @ key, of_scores.mT @ query, weights.mT @ grad


def _scores(query: Tensor, key: Tensor, visible: Tensor | None) -> Tensor:
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return scores if visible is None else scores.masked_fill(~visible, -torch.inf)


def shards(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's query, key, value and gradient of the output, of `shape`; queries times `scale`."""
    query, key, value, of_out = torch.randn(4, *case["shape"], generator=generator, dtype=torch.float64)
    return case["scale"] * query, key, value, of_out


def attend(fn: Callable, case: Case, query: Tensor, key: Tensor, value: Tensor, of_out: Tensor) -> dict:
    """`fn(query, key, value, block, block_backward)` and its backward pass; with `forward` only the output.

    The result's `held` has [moment, layer, bytes] of what is held, beside the arguments, as a block begins.
    """
    leaves = {"query": query, "key": key, "value": value}
    for leaf in leaves.values():
        leaf.requires_grad_(not case.get("forward"))
    note = Moments(case, seen := {})

    def noted(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
        note(BLOCK)
        return block(*arguments)  # pyright: ignore[reportArgumentType] (as the learner calls it)

    note.begin()
    change_first_arrival(case)
    mark(FORWARD[0])
    out = fn(query, key, value, noted, block_backward)
    mark(FORWARD[1])
    if isinstance(out, Tensor):
        seen[OUTPUT] = out.detach().clone()
    if not case.get("forward"):
        if not (isinstance(out, Tensor) and out.requires_grad):
            raise ValueError("the output requires no gradient: return what an autograd function's apply() returns")
        mark(BACKWARD[0])
        out.backward(of_out)
        mark(BACKWARD[1])
        seen |= {f"{GRADIENT} {name}": leaf.grad for name, leaf in leaves.items()}
    return {OUTPUT: out} | seen | {"held": note.samples}


def whole(outcome: Outcome) -> list:
    """What one process has, cut. With `every_diagonal` each block is masked as a rank's own; with `averaged` means of
    blocks count the same, whatever their scores.
    """
    case, n = outcome.case, outcome.ranks
    query, key, value, of_out = (torch.cat(parts, 2) for parts in zip(*outcome.inputs, strict=True))
    leaves = [each.requires_grad_() for each in (query, key, value)]
    share = query.shape[2] // n
    visible = torch.ones(share * n, share * n, dtype=torch.bool).tril()
    if case.get("every_diagonal"):
        visible = torch.ones(share, share, dtype=torch.bool).tril().repeat(n, n)
    if case.get("averaged"):
        out = _averaged(query, key, value, share, n)
    else:
        out, _ = block(query, key, value, visible)
    right = [{OUTPUT: part} for part in out.detach().chunk(n, 2)]
    if not case.get("forward"):
        out.backward(of_out)
        for name, leaf in zip(("query", "key", "value"), leaves, strict=True):
            for own, part in zip(right, leaf.grad.chunk(n, 2), strict=True):  # pyright: ignore[reportOptionalMemberAccess]
                own[f"{GRADIENT} {name}"] = part
    return right


def _averaged(query: Tensor, key: Tensor, value: Tensor, share: int, n: int) -> Tensor:
    keys, values = key.split(share, 2), value.split(share, 2)
    diagonal, rows = torch.ones(share, share, dtype=torch.bool).tril(), []
    for rank, own in enumerate(query.split(share, 2)):
        means = [block(own, keys[j], values[j], diagonal if j == rank else None)[0] for j in range(rank + 1)]
        rows.append(torch.stack(means).mean(0))
    return torch.cat(rows, 2)


@each_rank
def is_finite(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """No element of the output is NaN or infinite."""
    out = outcome.results[rank][OUTPUT]
    if isinstance(out, Tensor) and not out.isfinite().all():
        bad = int((~out.isfinite()).sum())
        raise Wrong(f"{where}: {bad} of {out.numel()} elements of the output are NaN or infinite", advice)
