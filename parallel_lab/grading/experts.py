"""The task of chapter 10 on experts: tokens that travel to experts on other ranks, and what one process makes of them.

As in `cutting`, a driver gives learner code what it works on, and observes. Ranks import this module.
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_lab.grading.cutting import BACKWARD, FORWARD
from parallel_lab.grading.drivers import from_rank_0, mark
from parallel_lab.grading.expect import each_rank, size, stretches_of
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case

E = 8  # bytes of a number
ALONG = 32  # bytes that may travel along with a row: a weight, the number of an expert or of a token


class Expert(nn.Module):
    """A linear, a GELU and a linear."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.up, self.up_bias, self.down, self.down_bias = (nn.Parameter(weight.clone()) for weight in weights)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) in and out."""
        return F.linear(F.gelu(F.linear(x, self.up, self.up_bias)), self.down, self.down_bias)


def routed(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """This rank's tokens and the gradient of its output; a router and all experts' weights, of which rank 0's count.

    `rows` has the numbers of tokens, cyclic.
    """
    width, hidden, experts = case["width"], case["hidden"], case.ranks * case["each"]
    rows = case["rows"][rank % len(case["rows"])]
    shapes = [(hidden, width), (hidden,), (width, hidden), (width,)] * experts
    tokens, of_output, router, *weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, width), (rows, width), (experts, width), *shapes)
    )
    return tokens, of_output, router / 2, [weight / weight.shape[-1] ** 0.5 for weight in weights]


def choose(case: Case, tokens: Tensor, router: Tensor) -> tuple[Tensor, Tensor]:
    """Choices (rows, K) and their weights, the scores; `crowded`: every so many-th expert alone is a first choice."""
    scores = (tokens @ router.T).softmax(1)
    wanted = scores.detach().clone()
    if crowded := case.get("crowded"):
        wanted[:, ::crowded] += 1
    chosen = wanted.sort(dim=1, descending=True, stable=True).indices[:, : case["k"]].contiguous()
    return chosen, scores.gather(1, chosen)


def experts_of(weights: list[Tensor]) -> list[Expert]:
    """All experts, from their weights one after another."""
    return [Expert(weights[place : place + 4]) for place in range(0, len(weights), 4)]


def dispatch(fn: Callable, case: Case, tokens: Tensor, of_output: Tensor, router: Tensor, weights: list) -> dict:
    """`fn(tokens, chosen, weights, experts, capacity)` and, but for `forward`, its backward pass."""
    rank, each = dist.get_rank(), case["each"]
    router, *weights = from_rank_0([router, *weights])
    own = experts_of(weights[4 * each * rank : 4 * each * (rank + 1)])
    tokens.requires_grad_()
    router.requires_grad_()
    chosen, scores = choose(case, tokens, router)
    mark(FORWARD[0])
    output = fn(tokens, chosen, scores, own, case.get("capacity"))
    mark(FORWARD[1])
    seen = {"the output": output.detach().clone()}
    if case.get("forward"):
        return seen
    mark(BACKWARD[0])
    output.backward(of_output)
    mark(BACKWARD[1])
    seen |= {"the gradient of the router": router.grad, "the gradient of its tokens": tokens.grad}
    return seen | _gradients(own, each * rank)


def _gradients(experts: list[Expert], first: int) -> dict:
    return {
        f"the gradient of expert {number}'s {name}": p.grad
        for number, expert in enumerate(experts, first)
        for name, p in expert.named_parameters()
    }


def whole_experts(outcome: Outcome) -> list:
    """Of `dispatch`. With `shared`, a usual mistake, a capacity is for all ranks together, rank after rank."""
    case, each = outcome.case, outcome.case["each"]
    experts = experts_of(outcome.inputs[0][3])
    seen, outputs, leaves = [], [], []
    taken = torch.zeros(len(experts), dtype=torch.int64)
    for tokens, *_ in outcome.inputs:
        tokens, router = tokens.clone().requires_grad_(), outcome.inputs[0][2].clone().requires_grad_()
        chosen, scores = choose(case, tokens, router)
        taken = taken if case.get("shared") else torch.zeros_like(taken)
        outputs.append(_mixed(experts, tokens, chosen, scores, case.get("capacity"), taken))
        leaves.append((router, tokens))
        seen.append({"the output": outputs[-1].detach()})
    if case.get("forward"):
        return seen
    torch.cat(outputs).backward(torch.cat([of_output for _, of_output, *_ in outcome.inputs]))
    for rank, (own, (router, tokens)) in enumerate(zip(seen, leaves, strict=True)):
        own |= {"the gradient of the router": router.grad, "the gradient of its tokens": tokens.grad}
        own |= _gradients(experts[each * rank : each * (rank + 1)], each * rank)
    return seen


def _mixed(
    experts: list[Expert], tokens: Tensor, chosen: Tensor, scores: Tensor, capacity: int | None, taken: Tensor
) -> Tensor:
    """What one process makes of some tokens; `taken` says how many each expert has had, and is added to."""
    output = torch.zeros_like(tokens)
    for number, expert in enumerate(experts):
        rows, place = (chosen == number).nonzero(as_tuple=True)
        left = len(rows) if capacity is None else max(0, capacity - int(taken[number]))
        rows, place = rows[:left], place[:left]
        taken[number] += len(rows)
        output = output.index_add(0, rows, scores[rows, place].unsqueeze(1) * expert(tokens[rows]))
    return output


@each_rank
def travels(outcome: Outcome, rank: int, where: str, advice: str) -> None:
    """Each way a rank sends what it has for other ranks' experts and what it returns, and little beside these rows."""
    case, router = outcome.case, outcome.inputs[0][2]
    owners = [choose(case, tokens, router)[0].flatten() // case["each"] for tokens, *_ in outcome.inputs]
    rows = int((owners[rank] != rank).sum())
    rows += sum(int((of_other == rank).sum()) for other, of_other in enumerate(owners) if other != rank)
    most = rows * (case["width"] * E + ALONG) + 4 * E * case["each"] * outcome.ranks
    for way in (FORWARD, BACKWARD):
        (spans,) = stretches_of(outcome, rank, way)
        if (sent := sum(s.sent_bytes for s in spans)) > most:
            needed = f"{rows} rows, {size(rows * case['width'] * E)}"
            seen = f"{where} sent {size(sent)} in {way[0].removesuffix(' of step')}"
            raise Wrong(f"{seen}; its choices of other ranks' experts and what it returns are {needed}", advice)
