"""Comparing what ranks returned with what was expected, in the kernel, by value; and saying where they differ."""

from collections.abc import Mapping
from typing import Any

import torch

from parallel_lab.grading.lab import Wrong
from parallel_lab.grading.rank_side import Opaque

# Sums of a handful of float64 normals: two orders of adding differ by a few units in the last place (2e-16 each).
TOLERANCE = 1e-12
Advice = str | Mapping[str, str]


def same(got: Any, expected: Any, where: str, advice: Advice = "", tolerance: float = TOLERANCE) -> None:
    """Checks that `got` is `expected`: the same structure, shapes and dtypes, and values within `tolerance`.

    Of dicts, the items that are expected are compared, in their order; others are for other graders.

    Args:
        got: what came.
        expected: what should come. NaN equals nothing.
        where: begins the message: `at 3 ranks: rank 1`.
        advice: ends it; for dicts it may name an advice by the end of the item's name.
        tolerance: both absolute and relative to the largest expected value.

    Raises:
        Wrong: they differ.
    """
    if isinstance(expected, dict):
        for what, value in expected.items():
            same(got[what], value, f"{where}, {what}", _about(what, advice), tolerance)
    elif isinstance(expected, list | tuple) and not _are_words(expected):
        _same_list(got, expected, where, advice, tolerance)
    elif isinstance(expected, torch.Tensor):
        _same_tensor(got, expected, where, _about("", advice), tolerance)
    elif type(expected) is float and type(got) is float:
        if not abs(got - expected) <= tolerance * (1 + abs(expected)):
            raise Wrong(f"{where} is {got:.6g}, expected {expected:.6g}", _about("", advice))
    elif type(got) is not type(expected) or got != expected:
        raise Wrong(f"{where}: got {name(got)}, expected {expected!r}", _about("", advice))


def _about(what: str, advice: Advice) -> str:
    if isinstance(advice, str):
        return advice
    return next((text for end, text in advice.items() if what.endswith(end)), "")


def _are_words(items: list | tuple) -> bool:
    """Whether a message can show them."""
    return all(type(item) in (int, str) for item in items)


def name(value: Any) -> str:
    """What a returned value is, in a few words."""
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Opaque):
        return f"an object of class {value.type_name}"
    if isinstance(value, list) and not _are_words(value):
        return f"a list of {len(value)}"
    return repr(value)


def _same_list(got: Any, expected: Any, where: str, advice: Advice, tolerance: float) -> None:
    if type(got) is not list or len(got) != len(expected):
        raise Wrong(f"{where}: got {name(got)}, expected {name(list(expected))}", _about("", advice))
    for place, (one, other) in enumerate(zip(got, expected, strict=True)):
        same(one, other, f"{where} {place}", advice, tolerance)


def _same_tensor(got: Any, expected: torch.Tensor, where: str, advice: str, tolerance: float) -> None:
    # torch.Tensor and nothing derived from it: a subclass can answer comparisons as it likes.
    if type(got) is not torch.Tensor or got.shape != expected.shape or got.dtype != expected.dtype:
        raise Wrong(f"{where}: got {name(got)}, expected {name(expected)}", advice)
    if expected.numel() == 0:
        return
    apart = (got.double() - expected.double()).abs()
    allowed = tolerance * (1 + expected.double().abs().max())
    if bool((apart <= allowed).all()):
        return
    worst = int(apart.nan_to_num(nan=float("inf")).argmax())
    seen, wanted = got.flatten()[worst].item(), expected.flatten()[worst].item()
    raise Wrong(f"{where}: element {worst} is {seen:.6g}, expected {wanted:.6g}{_guess(got, expected)}", advice)


def _guess(got: torch.Tensor, expected: torch.Tensor) -> str:
    """What a constant ratio between answer and expectation hints at; of one element it is always constant."""
    if got.numel() == 1:
        return ""
    ratio = got.double() / expected.double()
    first = ratio.flatten()[0].item()
    if not bool((ratio - first).abs().le(1e-9 * abs(first)).all()) or abs(first) < 1e-9:
        return ""
    return f"; every element is {first:.4g} times what it should be"
