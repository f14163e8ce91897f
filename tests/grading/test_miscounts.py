"""Each usual miscount of a training step is named by what it comes to, and a number that is none of them is not."""

import pytest
from torch import bfloat16, float32

from parallel_lab.grading import counted, miscounts
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case
from parallel_lab.model.gpt import GPTConfig
from parallel_lab.trace import Trace

GIVEN = [
    (GPTConfig(17, 5, 2, 2, 10, 3, tied=True, bias=True), 2, [bfloat16, float32, float32, float32, float32]),
    (GPTConfig(50, 9, 3, 4, 8, 2, tied=False, bias=False), 3, [bfloat16, bfloat16, float32, float32, float32]),
    (GPTConfig(11, 3, 3, 2, 4, 4, tied=True, bias=False), 2, [bfloat16] * 2 + [float32] * 4),
    (GPTConfig(50, 5, 2, 4, 20, 2, tied=False, bias=True), 3, [bfloat16] * 2 + [float32] * 4),
]
OF = {
    "parameters": miscounts.OF_SIZES,
    "state_bytes": miscounts.OF_STATE,
    "flops": miscounts.OF_FLOPS,
    "causal_flops": miscounts.OF_CAUSAL,
}
EACH = [pytest.param(item, said, id=f"{item}-{n}") for item, mistakes in OF.items() for n, said in enumerate(mistakes)]


def advice(item, number):
    """What is said where each rank returned `number(config, batch, what is right)` for the item."""
    outcome = Outcome(Case(len(GIVEN)), GIVEN, [], [], Trace(len(GIVEN), ()), counted.counted)
    for (config, batch, _), right in zip(GIVEN, outcome.expected, strict=True):
        outcome.results.append(right | {item: number(config, batch, right)})
    with pytest.raises(Wrong) as caught:
        counted.counts(item, mistakes=OF[item])(outcome)
    assert "mlp_ratio=" in caught.value.seen and "rotary" not in caught.value.seen, "what differs of a config, no more"
    return caught.value.advice


@pytest.mark.parametrize(("item", "said"), EACH)
def test_miscount_is_named(item, said):
    assert said == advice(item, OF[item][said])


@pytest.mark.parametrize("item", OF)
def test_another_number_is_to_be_tried_by_hand(item):
    assert advice(item, lambda config, batch, right: right[item] + 1).startswith("Try it by hand")
    assert advice(item, lambda config, batch, right: 0).startswith("Try it by hand")


def test_two_miscounts_that_come_to_the_same_are_both_named():
    given = [(counted.GPT3, 1, [])]
    outcome = Outcome(Case(1), given, [], [], Trace(1, ()), lambda _: [{"parameters": 175}])
    outcome.results.append({"parameters": 175 - 4 * counted.GPT3.layers * counted.GPT3.width})
    with pytest.raises(Wrong) as caught:
        counted.counts("parameters", mistakes=miscounts.OF_SIZES)(outcome)
    assert "norms of the blocks: each block has two. Or: That leaves out the biases of attention" in caught.value.advice
