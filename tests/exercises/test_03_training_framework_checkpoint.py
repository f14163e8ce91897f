"""`training_framework`: checkpoints that are wrong, or in the wrong place, fail with their own messages."""

import copy
import os
import sys

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from grading import assert_found_out
from training_loop import RESUME, SAVE, framework, nothing

# As from a notebook: ranks get the functions and need not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "training_framework"


def broadcast_only(model, optimizer, checkpoint):
    for p in model.parameters():
        dist.broadcast(p.data, 0)
    return 0


def without_momentum(model, optimizer, checkpoint):
    fresh = copy.deepcopy(optimizer.state_dict())
    step = RESUME(model, optimizer, checkpoint)
    optimizer.load_state_dict(fresh)
    return step


def own_disk(model, optimizer, checkpoint):
    if checkpoint and os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"]
    return broadcast_only(model, optimizer, checkpoint)


def everyone_saves(model, optimizer, step, checkpoint):
    if checkpoint:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint)


def leaves_scraps(model, optimizer, step, checkpoint):
    SAVE(model, optimizer, step, checkpoint)
    if checkpoint and dist.get_rank() == 0:
        with open(checkpoint + ".bak", "w") as file:
            file.write("old")


def saves_elsewhere(model, optimizer, step, checkpoint):
    if checkpoint:
        with open("/tmp/parallel-lab-cheat", "w") as file:
            file.write("state")


def saves_elsewhere_with_torch(model, optimizer, step, checkpoint):
    if checkpoint:
        torch.save(model.state_dict(), "/tmp/parallel-lab-cheat")


CHEATS = {  # title: (answer, the grader that sees through it, what it says)
    "every rank saves": (framework(save=everyone_saves), "checkpoint", "at 2 ranks: rank 1's disk has checkpoint.pt"),
    "nobody saves": (framework(save=nothing), "checkpoint", "at 2 ranks: rank 0 left no file at `checkpoint`"),
    "scraps": (framework(save=leaves_scraps), "checkpoint", "rank 0's disk has checkpoint.pt, checkpoint.pt.bak"),
    "saves elsewhere": (framework(save=saves_elsewhere), "checkpoint", "data may leave a rank only by messages"),
    "saves elsewhere with torch": (
        framework(save=saves_elsewhere_with_torch),
        "checkpoint",
        "SideDoor: open('/tmp/parallel-lab-cheat')",
    ),
    "momentum lost": (
        framework(resume=without_momentum),
        "checkpoint",
        "at 2 ranks: rank 0, after 5 steps: parameter 0: element",
    ),
    "starts over": (
        framework(resume=broadcast_only),
        "checkpoint",
        "at 2 ranks: rank 0 returned 5 items, expected a list of 3 losses",
    ),
    "each looks on its own disk": (framework(resume=own_disk), "checkpoint", "rank 1 called broadcast"),
}


@pytest.mark.parametrize(("cheat", "grader", "said"), CHEATS.values(), ids=CHEATS)
def test_cheat_fails_with_its_message(cheat, grader, said):
    assert_found_out(NAME, cheat, grader, said)
