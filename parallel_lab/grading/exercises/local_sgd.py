"""Chapter 04: local SGD, also called federated averaging (McMahan et al. 2017, algorithm 1; Stich 2019).

Each rank takes H steps on its own weights, then all take the average of the weights. The bytes per step are 1/H of
those of synchronous SGD; what is lost is that gradients 2 to H of a round are taken at weights that nobody else has.
"""

from functools import partial
from math import ceil, inf

from parallel_lab.grading.case import Case
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import ITEM_BYTES, equals, sends, unlike
from parallel_lab.grading.oracles import local_steps
from parallel_lab.grading.replay import HEADER_BYTES, is_silent_within_rounds
from parallel_lab.grading.workers import drive_local, regression

WIDTH = 60  # divides by 2, 3 and 4
EVEN = (((6,), 3), ((6, 6), 3), ((6, 6, 6), 2), ((4, 4, 4, 4), 4), ((3, 3), 1))  # (batches of each rank, every)
UNEVEN = (((7, 7), 3), ((7, 5, 2), 3), ((2, 6, 5, 1), 2), ((3, 2), 10))
AVERAGE = "After `every` local steps, and once after the last ones, all take the average, weighted by their steps."
OWN = "Within a round each rank steps on its own weights; a round begins with the average."
right = equals({"its gradient": OWN, "it returned": AVERAGE}, 1e-12)
usual = unlike(
    "the weights that it returned",
    {
        "the weights were averaged after every step": partial(local_steps, every=1),
        "the weights were never averaged": partial(local_steps, share=lambda steps: 0),
        "the weights were averaged only at the end": partial(local_steps, every=inf),
        "each rank counted alike, whatever it had done in the round": partial(local_steps, share=lambda steps: 1),
    },
    AVERAGE,
)


def average_bytes(case: Case) -> float:
    """What a rank sends for a ring all-reduce of the weights a round."""
    return ceil(max(case["counts"]) / case["every"]) * 2 * (case.ranks - 1) / case.ranks * WIDTH * ITEM_BYTES


once_a_round = sends(
    "one average a round by a ring sends",
    most=lambda case: average_bytes(case) + HEADER_BYTES,
    least=average_bytes,
    advice="How many averages are there? One all_reduce of the weights each is enough.",
)


def everywhere(*graders, cases=EVEN + UNEVEN):
    """Checks for each division of batches."""
    return [check for counts, every in cases for check in on(len(counts), *graders, counts=counts, every=every)]


EXERCISE = Exercise(
    name="local_sgd",
    title="Local SGD: average the weights every H steps",
    level="easy",
    minutes=25,
    notebook="04_gradient_synchronization",
    device="cpu",
    given=regression,
    drive=drive_local,
    expected=local_steps,
    settings={"width": WIDTH, "lr": 0.5},
    tests=(
        test(
            "Every rank returns the weights of local SGD in one process, at 1 to 4 ranks",
            everywhere(usual, right, cases=EVEN),
        ),
        test(
            "Uneven shares count by the steps taken, a last round may be short, and ranks without batches still join in",
            everywhere(usual, right, cases=UNEVEN),
        ),
        test(
            "Within a round nothing is sent and nobody waits; between two rounds all meet",
            everywhere(is_silent_within_rounds()),
        ),
        test("A rank sends the weights once a round: 1/H of the bytes of synchronous SGD", everywhere(once_a_round)),
    ),
)
