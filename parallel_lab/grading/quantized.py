"""The task of chapter 13 on quantization: inputs, the right codes, and the usual wrong ones.

As in `counted`, each rank draws a case of its own, and nothing is sent. Ranks import this module.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, name
from parallel_lab.grading.values import differ, same

SHAPES = ((12, 12), (5, 16), (16, 6))  # (out, in) of a rank; a square one fits whichever dim a scale is for
BATCHES, ROWS = 3, 7


class Given(NamedTuple):
    """The arguments of a call."""

    weight: Tensor  # (out, in)
    train: list[Tensor]  # batches of inputs, each (rows, in)
    test: Tensor  # (rows, in)


Mistake = Callable[[Given, dict], Any]  # what a usual mistake gives for an item, beside the right results


def drawn(case: Case, rank: int, generator: torch.Generator) -> tuple:
    """A weight with one large row, three batches to calibrate with, and test inputs that reach out of their range.

    `signs`: all inputs of a rank are positive (1) or negative (-1).
    """
    rows, inputs = SHAPES[rank % len(SHAPES)]
    weight, *batches = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, inputs), *[(ROWS, inputs)] * (BATCHES + 1))
    )
    weight[rank % rows] *= 20
    if signs := case.get("signs"):
        batches = [signs[rank] * (batch.abs() + 1) for batch in batches]
    return tuple(Given(weight, batches[:-1], 3 * batches[-1]))


def scales(weight: Tensor) -> Tensor:
    """One for each output channel, (out,): its greatest size is the code 127."""
    return weight.abs().amax(1) / 127


def grid(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of unsigned codes of 8 bits, for a range that is made to reach to 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (high - low) / 255, round(-low / ((high - low) / 255))


def expected(outcome: Outcome) -> list:
    """What each rank should return."""
    return [_right(Given(*given)) for given in outcome.inputs]


def _right(given: Given) -> dict:
    weight, train, test = given
    scale, seen = scales(weight), torch.stack(train)
    codes = torch.round(weight / scale[:, None]).to(torch.int8)
    input_scale, zero = grid(seen.min().item(), seen.max().item())
    inputs = (torch.round(test / input_scale) + zero).clamp(0, 255).to(torch.uint8)
    outputs = ((inputs.long() - zero) @ codes.T.long()) * (input_scale * scale)
    return {
        "scale": scale,
        "codes": codes,
        "input_scale": input_scale,
        "input_zero": zero,
        "input_codes": inputs,
        "outputs": outputs,
    }


@each_rank
def returns(outcome: Outcome, rank: int, where: str, *items: str, mistakes: Mapping[str, tuple[str, Mistake]]) -> None:
    """The `items` of a rank's result are right; if one is what a usual mistake gives, the message says which.

    `mistakes` has by its advice the item that shows a mistake, and what it then is.
    """
    given, got, right = Given(*outcome.inputs[rank]), outcome.results[rank], outcome.expected[rank]
    where = f"{where}, weight {tuple(given.weight.shape)}"
    if type(got) is not dict:
        raise Wrong(f"{where} returned {name(got)}, expected a dict with {', '.join(items)}")
    for item in items:
        if item not in got:
            raise Wrong(f"{where}: the result has no {item!r}", "One dict has all of them; add it to yours.")
        value, wanted = _number(got[item]), right[item]
        if differ(value, wanted):
            made = ((said, mistake(given, right)) for said, (of, mistake) in mistakes.items() if of == item)
            shown = (said for said, mistaken in made if _is(value, mistaken))
            same(value, wanted, f"{where}, {item}", next(shown, "Try one row by hand, number by number."))


def _number(value: Any) -> Any:
    """A tensor of one number without a dim is as good as that number."""
    return value.item() if type(value) is torch.Tensor and value.dim() == 0 else value


def _is(value: Any, mistaken: Any) -> bool:
    """Whether this is the mistake: its value, or, where it is a dtype, a tensor of floating-point numbers."""
    if mistaken is float:
        return type(value) is torch.Tensor and value.is_floating_point()
    if type(mistaken) is torch.Tensor and type(value) is float:  # one scale for all
        return not differ(mistaken, torch.full_like(mistaken, value))
    return not differ(value, mistaken)
