"""`expert_dispatch`: rows in the wrong order, routers and experts without gradient, a shared capacity, and a gather."""

import pytest
import torch
import torch.distributed as dist
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch.distributed.nn import functional as of_torch

by_value(__name__)
NAME = "expert_dispatch"
SPACE = solutions(NAME)
Exchange, computed, in_order_of_experts, expert_dispatch = (
    SPACE[name] for name in ("Exchange", "computed", "in_order_of_experts", NAME)
)


def dispatch(exchange=Exchange.apply, compute=computed, in_order=in_order_of_experts, combine=None):
    """An answer with a part of it done in another way."""

    def changed(tokens, chosen, weights, experts, capacity):
        n = dist.get_world_size()
        order, counts = in_order(chosen, n * len(experts), capacity)
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts)
        given, taken = (each.view(n, -1).sum(1).tolist() for each in (counts, arriving))
        rows = exchange(tokens[order // chosen.shape[1]], given, taken)
        returned = exchange(compute(rows, arriving, experts, n), taken, given)
        if combine:
            return combine(returned, order, weights)
        right = weights.flatten()[order, None] * returned
        return torch.zeros_like(tokens).index_add(0, order // chosen.shape[1], right)

    return changed


def as_they_come(returned, order, weights):
    return (weights.unsqueeze(-1) * returned.view(*weights.shape, -1)).sum(1)


def weights_at_the_expert(tokens, chosen, weights, experts, capacity):
    """Weights as numbers without a graph, as if they had travelled with the rows."""
    return expert_dispatch(tokens, chosen, weights.detach(), experts, capacity)


def plain_exchange(rows, given, taken):
    arrived = rows.new_empty(sum(taken), rows.shape[1])
    dist.all_to_all_single(arrived, rows.detach().contiguous(), taken, given)
    return arrived.requires_grad_()


def only_busy_experts(rows, arriving, experts, n):
    owner = torch.arange(len(experts)).repeat(n).repeat_interleave(arriving)
    outputs = torch.zeros_like(rows)
    for number, expert in enumerate(experts):
        here = (owner == number).nonzero()[:, 0]
        if len(here):
            outputs = outputs.index_copy(0, here, expert(rows[here]))
    return outputs


def one_capacity_for_all(chosen, experts, capacity):
    """Ranks before this one fill an expert first."""
    if capacity is None:
        return in_order_of_experts(chosen, experts, None)
    counts = chosen.flatten().bincount(minlength=experts)
    every = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
    dist.all_gather(every, counts)
    left = (capacity - sum(every[: dist.get_rank()], torch.zeros_like(counts))).clamp(min=0)
    order, _ = in_order_of_experts(chosen, experts, None)
    expert = chosen.flatten()[order]
    nth = torch.arange(len(order)) - (counts.cumsum(0) - counts)[expert]
    return order[nth < left[expert]], counts.minimum(left)


def gathers(tokens, chosen, weights, experts, capacity):
    """Every rank gets all tokens, computes what is for its experts, and the sums are added up."""
    n, rank = dist.get_world_size(), dist.get_rank()
    sizes = [torch.tensor(0) for _ in range(n)]
    dist.all_gather(sizes, torch.tensor(len(tokens)))
    most = max(int(size) for size in sizes)
    pad = torch.nn.functional.pad
    everyone = torch.cat(of_torch.all_gather(pad(tokens, (0, 0, 0, most - len(tokens)))))
    wanted = torch.cat(of_torch.all_gather(pad(chosen, (0, 0, 0, most - len(tokens)), value=-1)))
    shares = torch.cat(of_torch.all_gather(pad(weights, (0, 0, 0, most - len(tokens)))))
    if capacity is not None:
        for part in wanted.split(most):
            for number in range(n * len(experts)):
                late = (part.flatten() == number).nonzero()[capacity:, 0]
                part.view(-1)[late] = -1
    total = torch.zeros_like(everyone)
    for number, expert in enumerate(experts, rank * len(experts)):
        rows, place = (wanted == number).nonzero(as_tuple=True)
        total = total.index_add(0, rows, shares[rows, place, None] * expert(everyone[rows]))
    own = of_torch.reduce_scatter(torch.empty_like(total[:most]), list(total.contiguous().split(most)))
    return own[: len(tokens)]


CHEATS = [  # (answer, the test that sees through it, what it says)
    (dispatch(combine=as_they_come), 0, "at 2 ranks: rank 0, the output: element .*\n.*not token after token"),
    (weights_at_the_expert, 1, "the gradient of the router: got None.*\n.*The router learns through the weights alone"),
    (dispatch(exchange=plain_exchange), 1, "the gradient of its tokens: .*\n.*lies there: it must travel back"),
    (dispatch(compute=only_busy_experts), 2, r"the gradient of expert \d's up: got None.*\n.*zeros and not None"),
    (dispatch(in_order=one_capacity_for_all), 3, "at 3 ranks: a capacity was one for all ranks together"),
    (gathers, 4, r"rank \d sent .* in the forward; its choices of other ranks' experts .*\n.*and to nobody else"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def padded(tokens, chosen, weights, experts, capacity):
    """Not a cheat: one exchange for each expert of a rank, and weights that travel along."""
    n, total = dist.get_world_size(), torch.zeros_like(tokens)
    for place, expert in enumerate(experts):
        mine = [(chosen == r * len(experts) + place).nonzero(as_tuple=True) for r in range(n)]
        mine = [(rows[:capacity], which[:capacity]) for rows, which in mine]
        rows, which = (torch.cat(each) for each in zip(*mine, strict=True))
        given, arriving = torch.tensor([len(each) for each, _ in mine]), torch.empty(n, dtype=torch.int64)
        dist.all_to_all_single(arriving, given)
        both = torch.cat([tokens[rows], weights[rows, which, None]], 1)
        arrived = Exchange.apply(both, given.tolist(), arriving.tolist())
        outputs = expert(arrived[:, :-1]) * arrived[:, -1:]
        total = total.index_add(0, rows, Exchange.apply(outputs, arriving.tolist(), given.tolist()))
    return total


def test_another_right_answer_passes():
    assert_passes(NAME, padded)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, weights_at_the_expert, "the gradient of the router: got None")
    assert_ends_a_step(NAME, 2, dispatch(in_order=one_capacity_for_all), "one for all ranks together")
    assert_ends_a_step(NAME, 3, gathers, "its choices of other ranks' experts")
