"""Comparing what ranks returned with what was expected, in the kernel, by value; and saying where they differ."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from parallel_lab.grading.lab import Wrong
from parallel_lab.grading.rank_side import are_words, name

# Both absolute, and relative to the largest expected value. Gradients, and weights after some steps, summed in another
# order, are sums of some hundred float64 products: errors of 1e-14. A wrong factor of 1.0001 is far outside.
TOLERANCE = 1e-10
ONE_TENSOR = "You return a list of tensors: torch.stack and torch.cat make one tensor of it."
A_DICT = "Return a dict that has these keys."
Advice = str | Mapping[str, str]  # or by the end of an item's name
Locate = Callable[[torch.Tensor, torch.Tensor], str]  # of (got, expected): which elements are what


def same(got: Any, expected: Any, where: str, advice: Advice = "", locate: Locate = lambda *_: "") -> None:
    """Checks that `got` is `expected`: the same structure, shapes and dtypes, and values within `TOLERANCE`.

    Of dicts, the items that are expected are compared, in their order; others are for other graders. `where` begins
    the message, `at 3 ranks: rank 1`, what `locate` says of the elements and `advice` end it. NaN equals nothing.

    Raises:
        Wrong: they differ.
    """
    if isinstance(expected, dict):
        for what, value in expected.items():
            if not isinstance(got, dict) or what not in got:
                keys = ", ".join(map(repr, expected))
                raise Wrong(f"{where}: got {name(got)}, expected a dict with {keys}", A_DICT)
            ends = {"": advice} if isinstance(advice, str) else advice
            about = next((text for end, text in ends.items() if what.endswith(end)), "")
            same(got[what], value, f"{where}, {what}", about, locate)
    elif isinstance(expected, torch.Tensor):
        _same_tensor(got, expected, where, str(advice), locate)
    elif isinstance(expected, list | tuple) and not are_words(expected):
        if type(got) is not list or len(got) != len(expected):
            raise Wrong(f"{where}: got {name(got)}, expected {name(list(expected))}", str(advice))
        for place, (one, other) in enumerate(zip(got, expected, strict=True)):
            item = f"{where}{', item' * where[-1:].isdigit()} {place}"  # `layer 0`, but `rank 0, item 0`
            same(one, other, item, advice, locate)
    elif type(expected) is float and type(got) is float:
        if not abs(got - expected) <= TOLERANCE * (1 + abs(expected)):
            raise Wrong(f"{where} is {got:.6g}, expected {expected:.6g}", str(advice))
    elif type(got) is not type(expected) or got != expected:
        raise Wrong(f"{where}: got {name(got)}, expected {expected!r}", str(advice))


def differ(got: Any, expected: Any) -> bool:
    """Whether `got` is not what was expected."""
    try:
        same(got, expected, "")
    except Wrong:
        return True
    return False


def _same_tensor(got: Any, expected: torch.Tensor, where: str, advice: str, locate: Locate) -> None:
    # torch.Tensor and nothing derived from it: a subclass can answer comparisons as it likes.
    if isinstance(got, list) and got and all(type(one) is torch.Tensor for one in got):
        raise Wrong(f"{where}: got {name(got)}, expected {name(expected)}", ONE_TENSOR)
    if type(got) is not torch.Tensor or got.shape != expected.shape or got.dtype != expected.dtype:
        raise Wrong(f"{where}: got {name(got)}, expected {name(expected)}", advice)
    if expected.numel() == 0:
        return
    apart = (got.double() - expected.double()).abs()
    if bool((apart <= TOLERANCE * (1 + expected.double().abs().max())).all()):
        return
    worst = int(apart.nan_to_num(nan=float("inf")).argmax())
    seen, wanted = got.flatten()[worst].item(), expected.flatten()[worst].item()
    told = _guess(got, expected) or locate(got, expected)
    raise Wrong(f"{where}: element {worst} is {seen:.6g}, expected {wanted:.6g}{told and f'; {told}'}", advice)


def _guess(got: torch.Tensor, expected: torch.Tensor) -> str:
    """What a constant ratio between answer and expectation hints at; of one element it is always constant."""
    ratio = (got.double() / expected.double()).flatten()
    first = ratio[0].item()
    constant = bool((ratio - first).abs().le(1e-9 * abs(first)).all())
    return f"every element is {first:.4g} times what it should be" if constant and first and len(ratio) > 1 else ""
