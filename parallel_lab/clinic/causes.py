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
    Cause(
        "unused parameters", "hangs",
        "A rank makes fewer all-reduces than the others, by as many as it had no gradient for; weights of the ranks "
        "part at that step.",
        "Count the calls of each rank in one step; print the parameters whose gradient is None.",
        "Exchange every gradient on every rank, zeros where there is none (`find_unused_parameters=True`).", "03",
    ),
    Cause(
        "blocking sends in a circle", "hangs",
        "Ranks wait in a send to each other, and none has come to its receive.",
        "Follow who waits for whom: does it lead back?",
        "Post sends without waiting, receive first on one side, or issue both together.", "09",
    ),
    Cause(
        "gathered on rank 0", "crashes",
        "One rank holds what all hold together, at one place in the program; the others send it their share.",
        "Compare the bytes held by each rank at the save with those of a step.",
        "Each rank writes its own share.", "06",
    ),
    Cause(
        "loader bound", "crawls",
        "On all ranks alike there is a gap before the forward pass, and nobody waits in a collective for long.",
        "Feed the same batch again and again: is the step quicker?",
        "Read the next batches while this one is computed.", "14",
    ),
    Cause(
        "clipped per rank", "trains worse",
        "The norm differs from rank to rank and is larger than that of one process; the ranks agree on the weights.",
        "Compute the norm of the averaged gradient, and compare it with the logged one.",
        "Average first, and clip the average.", "03",
    ),
    Cause(
        "torn checkpoint", "trains worse",
        "After a restart the loss is above that of the step it goes on from, and ranks have read different steps.",
        "Print the step of the file that each rank has read.",
        "Agree on the newest step of which every rank has its part; write all files before the name.", "16",
    ),
    Cause(
        "same samples", "trains worse",
        "All ranks report the same loss to the last digit; an epoch has as many steps as on one rank.",
        "Print the sample ids of the first batch of each rank.",
        "Each rank takes its own part of one common order.", "03",
    ),
    Cause(
        "stale world size", "trains worse",
        "After a restart on fewer ranks the gradient norm is smaller by new over old, and some samples are never read.",
        "Count the samples of an epoch over all ranks; look for a number of ranks that is written down.",
        "Ask the process group for its size, wherever something is divided or dealt out.", "16",
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
