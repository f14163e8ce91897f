"""What the trace calls a collective: which forward pass it belongs to, and which direction it runs in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist

from parallel_lab.runtime.group import member
from parallel_lab.trace import recorder, tag

_number: WeakKeyDictionary[dist.ProcessGroup, int] = WeakKeyDictionary()


def next_pass(group: dist.ProcessGroup) -> None:
    """A model that is cut over `group` begins a forward pass; one that is computed again belongs to the old one."""
    if not recorder().in_backward():
        _number[group] = _number.get(group, -1) + 1


@contextmanager
def named(group: dist.ProcessGroup | None, phase: str = "forward") -> Iterator[None]:
    """The one collective inside carries the number of the pass as `mb`, unless a tag around has one, and the phase.

    What activation recomputation repeats has the phase `recompute`. Where a tag around names a part, a stage of a
    pipeline, say, the phase counts the collectives of that part. In the backward pass the pairs of `collectives` keep
    the names of their forward pass.
    """
    group, around = member(group), recorder().names
    if phase == "forward" and recorder().in_backward():
        phase = "recompute"
    names: dict[str, Any] = {"mb": _number.get(group, 0), **around, "phase": phase}
    with tag(**names), tag(**(recorder().names_inside(getattr(group, "axis", "")) if "part" in around else {})):
        yield
