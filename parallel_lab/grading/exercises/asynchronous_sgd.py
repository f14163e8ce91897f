"""Chapter 04: asynchronous SGD through one server (Dean et al. 2012, "Downpour"; Recht et al. 2011 on why it may work).

Whoever finishes a gradient hands it in and goes on at once with the newest weights. Nobody waits for a slow worker; the
price is staleness, the number of updates between the weights a gradient was computed at and those it is applied to.
"""

from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import forbids
from parallel_lab.grading.replay import (
    applies_each_gradient,
    exchanges,
    goes_on,
    lowers_the_loss,
    reads_own_gradients,
    reports_staleness,
)
from parallel_lab.grading.workers import Hold, drive_asynchronous, regression

COUNTS = ((0, 5), (0, 4, 6), (0, 5, 3, 4))  # batches of each rank; the server has none
HELD = (  # one slow worker, then two
    {"counts": (0, 6, 3), "holds": (Hold(rank=2, batch=1, until=((1, 6),)),)},
    {"counts": (0, 3, 3, 6), "holds": tuple(Hold(rank=slow, batch=0, until=((3, 6),)) for slow in (1, 2))},
)
SEND = "In a collective every rank waits for the slowest. Send to the one rank that needs it."
PUSH = "One gradient a batch goes to the server, and nothing to other workers."
PULL = "Whose push is it? Only that worker wants weights now; the others have work to do."
LISTEN = "Whom does the server listen to, and when does it answer?"
right = applies_each_gradient("Each gradient is one step: w -= lr g.")


def everywhere(*graders):
    """Checks with 1, 2 and 3 workers."""
    return [check for counts in COUNTS for check in on(len(counts), *graders, counts=counts)]


def held(*graders):
    """Checks with slow workers."""
    return [check for case in HELD for check in on(len(case["counts"]), *graders, **case)]


EXERCISE = Exercise(
    name="asynchronous_sgd",
    title="Asynchronous SGD, and how stale its gradients are",
    level="medium",
    minutes=35,
    notebook="04_gradient_synchronization",
    device="cpu",  # gloo receives from any source only there
    given=regression,
    drive=drive_asynchronous,
    settings={
        "width": 64,
        "servers": 1,
        "momentum": 0.0,
        "reports_staleness": True,
        "pulls_first": False,
        "lr": 0.8,  # all updates together, each computed at the initial weights, would still go downhill
    },  # fmt: skip
    tests=(
        test(
            "Each gradient of each worker is applied, alone and once, as reported, with 1 to 3 workers",
            everywhere(right),
        ),
        test("A worker computes at weights that it pulled after its last push", everywhere(reads_own_gradients())),
        test("The loss over all workers' data falls", everywhere(lowers_the_loss())),
        test(
            "A worker sends a gradient a batch, and the server answers him alone with weights; nothing else travels",
            everywhere(forbids(advice=SEND), exchanges(PUSH, PULL)),
        ),
        test(
            "While slow workers work on one gradient, a fast one finishes all of its own",
            *(everywhere(forbids(advice=SEND), right), held(forbids(advice=SEND), goes_on(LISTEN))),
        ),
        test(
            "The staleness reported for each update is the true one, also that of a slow worker",
            *(everywhere(reports_staleness()), held(goes_on(LISTEN), reports_staleness())),
        ),
    ),
)
