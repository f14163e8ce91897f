"""`sequence_block`: forgotten sums, means, biases that count n times, a gather without its reverse, and all-reduces."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, by_value, solutions
from torch import nn

by_value(__name__)
NAME = "sequence_block"
SPACE = solutions(NAME)
gathered, part, sequence_block = SPACE["gathered"], SPACE["part"], SPACE[NAME]
Gather, Row, Scatter = SPACE["Gather"], SPACE["Row"], SPACE["Scatter"]


class Lines(nn.Module):
    """A column or a row linear or a norm of the block, and what it computes."""

    def __init__(self, layer, run):
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, x):
        return self.run(self.layer, x)


def row_with(run):
    def changed(block):
        block = sequence_block(block)
        block.attention.out, block.feed_forward.down = (
            Lines(layer, run) for layer in (block.attention.out, block.feed_forward.down)
        )
        return block

    return changed


def summing(chosen, scale=lambda total: total):
    """After each backward the gradients whose names end in one of `chosen` are summed over the ranks."""

    def changed(block):
        block = sequence_block(block)

        def after_backward():
            for name, p in block.named_parameters():
                if name.endswith(chosen):
                    dist.all_reduce(p.grad)
                    p.grad = scale(p.grad)

        block.after_backward = after_backward
        return block

    return changed


NORMS, BIASES = ("norm.weight", "norm.bias"), ("out.bias", "down.bias")


def bias_first(layer, x):
    return Scatter.apply(F.linear(x, layer.weight, layer.bias))


class Own(torch.autograd.Function):
    """A gather whose backward takes this rank's part of this rank's gradient."""

    @staticmethod
    def forward(ctx, x):
        return gathered(x)

    @staticmethod
    def backward(ctx, of_whole):
        return of_whole.chunk(dist.get_world_size(), 1)[dist.get_rank()]


def takes_its_own(block):
    block = sequence_block(block)
    for name in ("attention_norm", "feed_forward_norm"):
        norm = getattr(block, name).norm
        setattr(block, name, Lines(norm, lambda norm, x: Own.apply(norm(x))))
    return block


class SumThenCut(torch.autograd.Function):
    """The sum for all tokens, on every rank, which then takes its own."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size(), 1)[dist.get_rank()].clone()

    @staticmethod
    def backward(ctx, of_part):
        return gathered(of_part)


def sums_all(layer, x):
    return SumThenCut.apply(F.linear(x, layer.weight)) + layer.bias


CHEATS = [  # (answer, the test that sees through it, what it says)
    (row_with(bias_first), 0, "at 2 ranks: biases came in once per rank"),
    (takes_its_own, 1, "step 0: the gradient of the input: element .*\n.*their gradient is the sum of what n ranks"),
    (summing(()), 2, "gradient of attention_norm.weight: element .*\n.*summed over the ranks"),
    (summing(NORMS), 2, "gradient of attention.out.bias: element .*\n.*summed over the ranks, not averaged"),
    (
        summing((*NORMS, *BIASES), lambda total: total / dist.get_world_size()),
        2,
        "attention_norm.weight: .* 0.25 times",
    ),
    (row_with(sums_all), 3, r"rank \d sent .* in the forward of step 0, two gathers and two reduce-scatters send"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, takes_its_own, "the sum of what n ranks")
    assert_ends_a_step(NAME, 2, summing(NORMS), "gradient of attention.out.bias")
    assert_ends_a_step(NAME, 3, row_with(sums_all), "two gathers and two reduce-scatters send")
