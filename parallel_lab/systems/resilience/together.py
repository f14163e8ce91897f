"""What ranks do together around a checkpoint: go on only where all can, and tell each other what they have."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from parallel_lab.agree.problem import agree
from parallel_lab.runtime import rank_device
from parallel_lab.runtime.group import member

T = TypeVar("T")


def agreed(
    action: Callable[[], T],
    why: str,
    undo: Callable[[], object] | None = None,
    group: dist.ProcessGroup | None = None,
) -> T:
    """What `action` returns here, once it has gone well on all ranks; otherwise all first call `undo`.

    Args:
        action: what this rank does.
        why: what could not be done, for the message: "cannot save step 3".
        undo: takes back what was begun.
        group: the ranks that call it.

    Raises:
        FileNotFoundError: `action` raised it here.
        ValueError: `action` raised it here.
        OSError: `action` raised anything else here.
    """
    problem, result = None, None
    try:
        result = action()
    except Exception as error:
        kind = next((each for each in (FileNotFoundError, ValueError) if isinstance(error, each)), OSError)
        problem = kind(f"rank {dist.get_rank(group)} {why}: {error}")
        problem.__cause__ = error
    agree(problem, member(group), rank_device(), undo)
    return result  # pyright: ignore[reportReturnType]


def gathered(mine: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """What all ranks have, in their order."""
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, mine, group)
    return everyone
