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
    # These have no case in the clinic.
    Cause(
        "slow link", "crawls",
        "All ranks wait equally long, and the longer the more bytes a call has.",
        "Time an all-reduce of the same size without the model, on the same hosts and on others.",
        "Replace cable, port or switch; until then send less, or less often.", "02",
    ),
    Cause(
        "learning rate not scaled", "trains worse",
        "Loss by step is that of a small batch although each step has n times the samples; all numbers agree over "
        "ranks.",
        "Draw the loss over samples instead of steps, at two batch sizes with a rate tuned for each.",
        "Tune the rate for the global batch; warm up where it is large.", "04",
    ),
    Cause(
        "sum instead of mean", "diverges",
        "The gradient norm is n times that of one process on the same batch, at every number of ranks n; behind Adam "
        "or a clip the loss may not show it.",
        "Compare the norm at two numbers of ranks.",
        "Divide by what was added up: ranks, microbatches or tokens, and once.", "03",
    ),
    Cause(
        "different initial weights", "trains worse",
        "The weights of the ranks differ before the first step, and stay apart although all take the same steps.",
        "Compare a checksum of the weights before training.",
        "Broadcast the weights of one rank before the first step.", "03",
    ),
    Cause(
        "rank that has ended", "hangs",
        "One rank has returned or died; all others wait for it in the same call.",
        "Ask which rank has no open call, and read the end of its log.",
        "Let all ranks make equally many steps, and end the job when one of them dies.", "16",
    ),
    Cause(
        "read before it arrived", "trains worse",
        "Results differ from run to run with the same seed, and more so on a slow network.",
        "Wait for each handle at once: do the numbers settle?",
        "Wait for the handle of a collective before the first use of its tensor.", "02",
    ),
    Cause(
        "same order each epoch", "trains worse",
        "The first batch of every epoch has the same samples.",
        "Log the numbers of the samples of the first batch of two epochs.",
        "Seed the shuffle with the epoch (`sampler.set_epoch`).", "17",
    ),
    Cause(
        "buffers of each rank", "trains worse",
        "All parameters agree over the ranks, and the test loss does not: running statistics differ.",
        "Compare buffers as well as parameters over the ranks.",
        "Compute the statistics over all ranks, or broadcast the buffers.", "03",
    ),
    Cause(
        "corrupted arithmetic", "diverges",
        "One rank's gradient differs when the same step is computed again on another host, and nothing is reported.",
        "Replay the step from the checkpoint before, on the same host and on another.",
        "Take the host out; go back to a checkpoint from before the first wrong step.", "16",
    ),
    Cause(
        "unequal stages", "crawls",
        "One stage of the pipeline computes without a pause, and all others wait for it.",
        "Compare the time of a pass over the stages.",
        "Move layers, or count embedding and head as layers when you cut.", "09",
    ),
    Cause(
        "fragmented memory", "crashes",
        "The allocator holds far more than the tensors need, and a large request fails although enough is free in sum.",
        "Compare reserved and allocated bytes when it fails.",
        "Ask for equal sizes, or for segments that can grow.", "14",
    ),
    Cause(
        "overloaded expert", "crawls",
        "One rank of the expert axis computes longest, with the most tokens; or tokens are dropped.",
        "Count the tokens of each expert in each step.",
        "Balance the router by a loss or a bias, and bound what an expert takes.", "10",
    ),
    # These have one.
    Cause(
        "skewed shards", "trains worse",
        "The loss of each rank is low on its own samples and high on those of the others; a rank reads few of the "
        "classes.",
        "Count the classes that each rank reads between two averages.",
        "Deal the samples out in one random order that all ranks draw from the same seed.", "04",
    ),
    Cause(
        "slow rank", "crawls",
        "One rank waits less in the collectives than all others, and computes for longer before them.",
        "Who calls the collective last, step after step? Run the same work on that host alone.",
        "Take the host out of the job, or give it less to do.", "15",
    ),
    Cause(
        "busy axis across hosts", "crawls",
        "The groups of ranks that send most have their ranks on different hosts; all ranks wait alike.",
        "List bytes by group, and the host of each rank.",
        "Give the axis that sends most the ranks of one host; send what is rare over the slow link.", "11",
    ),
    Cause(
        "desynchronized seed", "trains worse",
        "Ranks that should hold the same activation report different losses of the same batch, from the first step on.",
        "Compare the activation before and after each random operation over the ranks.",
        "Draw from one seed where ranks hold the same tensor, and from a seed each where they hold different "
        "parts.", "07",
    ),
    Cause(
        "norm counted twice", "trains worse",
        "The gradient norm is larger than that of one process on the same weights, and all gradients are clipped too"
        " far.",
        "Compare the norm of the first step with one process; count each parameter in the sum of squares.",
        "Count a parameter that stands on several ranks once.", "11",
    ),
    Cause(
        "stale bucket", "trains worse",
        "The exchange is issued before the last backward pass of the step, and the norm is too small.",
        "Look at the order of the last backward and the all-reduce in the timeline.",
        "Start the exchange of a gradient when its last microbatch has been added.", "03",
    ),
    Cause(
        "leaking cache", "grows",
        "What is held grows by the same amount in every step, and the number of entries passes that of different "
        "inputs.",
        "Count hits and entries; look for what in the key never comes again.",
        "Make the key of what decides the value, and bound the cache.", "14",
    ),
    Cause(
        "collectives in different orders", "trains worse",
        "All ranks make the same number of calls of the same sizes, and their weights differ after the first step; "
        "with other sizes it is an error or a hang.",
        "Print the name of the tensor at each call, and compare rank by rank.",
        "Order the calls by what is the same on all ranks, never by values.", "02",
    ),
    Cause(
        "overflow on one rank", "diverges",
        "One rank alone has a gradient beyond the range of the format; one collective later no rank has a finite one.",
        "Log the largest gradient of each rank before the exchange.",
        "Agree on the overflow over all ranks, leave the step out on all, and halve the scale.", "12",
    ),
    Cause(
        "weights drifted apart", "trains worse",
        "The weights are equal on all ranks up to one step, and never again; gradients are still averaged.",
        "Compare a checksum of the weights over the ranks after each step; what did the odd rank do in the first?",
        "Take every decision about a step together: reduce what it depends on, then decide.", "16",
    ),
    Cause(
        "data repeated after resume", "trains worse",
        "The samples after a restart are those of the first steps of the epoch; others are left out of it.",
        "Log the numbers of the samples, and compare before and after.",
        "Save the position in the data with the weights, and go on from there.", "16",
    ),
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
        "After a restart the loss is above that of an uninterrupted run, and ranks have read different steps.",
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
        ValueError: there is none; the message has the nearest names, if any is near.
    """
    if not isinstance(name, str) or name not in CAUSES:
        near = difflib.get_close_matches(str(name), CAUSES, n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "`plab clinic causes` lists them"
        raise ValueError(f"there is no cause {name!r}; {hint}")
    return CAUSES[name]
