"""What goes wrong in parallel training, as data: how each cause shows in numbers, how one makes sure, and the cure.

Ten of them and more have no case of their own: a map that holds only what is in the exercise would be learned, and not
used. `signature` says what a chart shows; `check` is the test that tells this cause from its neighbors.
"""

import difflib
from typing import NamedTuple


class Cause(NamedTuple):
    """One thing that goes wrong."""

    name: str
    symptom: str  # hangs, crashes, crawls, diverges, trains worse, grows
    signature: str  # what shows, in numbers; one sentence
    check: str  # what tells it from its neighbors
    cure: str
    chapter: str  # where the course explains it: "07"


_ALL = (
    Cause(
        "unweighted mean", "trains worse",
        "Ranks with unequal numbers of tokens count equally, so loss and gradient differ from one process from the "
        "first step on, while all ranks agree on the weights.",
        "Sum the losses and the tokens of all ranks and divide: is that the loss of the log?",
        "Divide the sum over all ranks by the number of tokens on all ranks, before the backward pass.", "03",
    ),
)  # fmt: skip
CAUSES: dict[str, Cause] = {cause.name: cause for cause in _ALL}


def cause_named(name: str) -> Cause:
    """The cause of this name.

    Raises:
        ValueError: there is none; the message has the nearest names.
    """
    if name not in CAUSES:
        near = difflib.get_close_matches(str(name), CAUSES, n=3, cutoff=0.4) or list(CAUSES)[:3]
        raise ValueError(f"there is no cause {name!r}; the nearest are {', '.join(near)}")
    return CAUSES[name]
