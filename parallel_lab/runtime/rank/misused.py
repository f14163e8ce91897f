"""Notices misuse of calls that return at once, which does not show in every result.

A message is received into memory from which another one is still being sent, or the other way round; or nobody waits
for a collective.
"""

from collections.abc import Callable
from typing import Any

from parallel_lab.runtime.rank.backend import LabGroup
from parallel_lab.runtime.rank.calls import Call


def watch_messages() -> list[tuple[str, str]]:
    """Looks from now on at each message of this rank.

    Returns:
        A list that grows: for each message that shares memory with one of the other kind that nobody has waited for
        yet, its kind and the learner's line, `file:number`.
    """
    found: list[tuple[str, str]] = []
    under_way: list[tuple[str, int, int, Any]] = []
    own_way = LabGroup._message

    def watching(group: LabGroup, kind: str, tensors: Any, other: int | None, tag: int) -> Any:
        first = tensors[0].data_ptr()
        last = first + tensors[0].nbytes
        under_way[:] = [message for message in under_way if not message[-1]._finished]
        shared = any(kind != its and max(first, start) < min(last, stop) for its, start, stop, _ in under_way)
        work: Any = own_way(group, kind, tensors, other, tag)
        if hasattr(work, "call"):  # one that a fault dropped has none
            under_way.append((kind, first, last, work))
            found.extend([(kind, work.call.line)] if shared else [])
        return work

    setattr(LabGroup, own_way.__name__, watching)
    return found


def watch_collectives() -> Callable[[], list[tuple[str, str]]]:
    """Looks from now on at each collective of this rank.

    Returns:
        What tells, at any time, the collectives for which nobody has waited or asked: kind and the learner's line.
    """
    calls: list[Call] = []  # and not the handles: these keep tensors
    own_way = LabGroup._collective

    def watching(group: LabGroup, *arguments: Any) -> Any:
        calls[:] = [call for call in calls if not call.asked]
        work: Any = own_way(group, *arguments)
        if hasattr(work, "call"):
            calls.append(work.call)
        return work

    setattr(LabGroup, own_way.__name__, watching)
    return lambda: [(call.kind, call.line) for call in calls if not call.asked]
