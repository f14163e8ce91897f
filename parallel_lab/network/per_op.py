"""What holds of an op (its seconds, its bytes, its algorithm), written in the shortest way that says it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parallel_lab.plan import RECEIVING, Op

PerOp = float | str | Sequence[Any] | Mapping[str, Any] | Callable[[Op], Any]
"""A number (of an algorithm, a name) for all ops; a sequence with one for each part; a mapping from the axis, or the
kind, of an op to any of these; or a function of the op."""

MESSAGES = frozenset({"send", *RECEIVING})
"""The kinds that are messages between two ranks."""


def value(number: PerOp, op: Op) -> Any:
    """What `number` says of `op`.

    Raises:
        ValueError: `number` is a mapping that has neither the axis nor the kind of `op`.
    """
    if isinstance(number, (int, float, str)):
        return number
    if callable(number):
        return number(op)
    if not isinstance(number, Mapping):
        return number[op.part]
    for key in (op.axis, op.kind):
        if key in number:
            return value(number[key], op)
    raise ValueError(f"no number for {op}: there is one for {', '.join(map(repr, number))}")
