"""`column_row_pair`: biases that count n times, gradients without a sum or with two, and traffic or copies too many."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch import nn
from torch.distributed.nn import functional as of_torch

by_value(__name__)
NAME = "column_row_pair"
SPACE = solutions(NAME)
enter, leave = SPACE["Enter"].apply, SPACE["Leave"].apply


class Parts(nn.Module):
    """Rows of up, columns of down, and a forward pass to be chosen."""

    def __init__(self, up, down, forward, copy=torch.clone):
        super().__init__()
        n, rank = dist.get_world_size(), dist.get_rank()
        cut = [(up.weight, 0), (up.bias, 0), (down.weight, 1)]
        for name, (tensor, dim) in zip(("u", "ub", "d"), cut, strict=True):
            self.register_parameter(name, nn.Parameter(copy(tensor.detach().chunk(n, dim)[rank])))
        self.db = nn.Parameter(down.bias.detach().clone())
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def answer(forward, **options):
    return lambda up, down: Parts(up, down, forward, **options)


def hidden(part, x):
    return F.gelu(F.linear(x, part.u, part.ub))


def right(part, x):
    return leave(F.linear(hidden(part, enter(x)), part.d)) + part.db


def bias_on_each_rank(part, x):
    return leave(F.linear(hidden(part, enter(x)), part.d, part.db))


def without_enter(part, x):
    return leave(F.linear(hidden(part, x), part.d)) + part.db


def summed_back_too(part, x):
    """The all-reduce of torch.distributed.nn sums in backward as well."""
    return of_torch.all_reduce(F.linear(hidden(part, enter(x)), part.d)) + part.db


class Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx, of_whole):
        return of_whole.chunk(dist.get_world_size(), -1)[dist.get_rank()]


def gathers_hidden(part, x):
    """The sum is over what every rank could compute from the whole hidden layer; each takes its columns again."""
    whole = Gathered.apply(hidden(part, enter(x)))
    return leave(F.linear(whole.chunk(dist.get_world_size(), -1)[dist.get_rank()], part.d)) + part.db


CHEATS = [  # (answer, the test that sees through it, what it says)
    (answer(bias_on_each_rank), 0, "at 2 ranks: the bias of down came in once per rank"),
    (
        answer(without_enter),
        1,
        r"the gradient of the input: element .*every element is what (its own|rank \d's) data alone give\n"
        ".*the layer below needs the sum of them",
    ),
    (answer(summed_back_too), 1, "every element is 2 times what it should be"),
    (answer(gathers_hidden), 2, r"rank \d sent .* in step 0, two all-reduces send 6,144 B\n.*the hidden layer stays"),
    (answer(right, copy=lambda part: part), 3, "between two steps holds .*\n.*a slice keeps the whole tensor alive"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def in_place(part, x):
    """Not a cheat: an all-reduce in place is no part of the graph, and so is `leave`."""
    total = F.linear(hidden(part, enter(x)), part.d)
    dist.all_reduce(total)
    return total + part.db


def test_another_right_answer_passes():
    assert_passes(NAME, answer(in_place))


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, answer(without_enter), "the layer below needs the sum")
    assert_ends_a_step(NAME, 2, answer(gathers_hidden), "two all-reduces send")
