"""Chapter 04: local SGD, also called federated averaging (McMahan et al. 2017, algorithm 1; Stich 2019).

Each rank takes H steps on its own weights, then all take the average of the weights. The bytes per step are 1/H of
those of synchronous SGD; what is lost is that gradients 2 to H of a round are taken at weights that nobody else has.
"""

from functools import partial
from math import ceil, inf

from parallel_lab.grading import expectations as expect
from parallel_lab.grading import oracles, replay, workers
from parallel_lab.grading.exercise import Exercise, on_each, test

EVEN = tuple(
    {"counts": counts, "every": every}
    for counts, every in (((6,), 3), ((6, 6), 3), ((6, 6, 6), 2), ((4, 4, 4, 4), 4), ((3, 3), 1))
)
UNEVEN = tuple(
    {"counts": counts, "every": every}
    for counts, every in (((7, 7), 3), ((7, 5, 2), 3), ((2, 6, 5, 1), 2), ((3, 2), 10))
)
AVERAGE = "After `every` local steps, and once after the last ones, all take the average, weighted by their steps."
OWN = "Within a round each rank steps on its own weights; a round begins with the average."
ONE = "How many averages are there? One all_reduce of the weights each is enough."
MISTAKES = {
    "the weights were averaged after every step": partial(oracles.local_steps, every=1),
    "the weights were never averaged": partial(oracles.local_steps, share=lambda steps: 0),
    "the weights were averaged only at the end": partial(oracles.local_steps, every=inf),
    "each rank counted alike, whatever it had done": partial(oracles.local_steps, share=lambda steps: 1),
}


@expect.grader
def averages_by_a_ring(outcome) -> None:
    """A rank sends what a ring all-reduce of the 60 weights sends, once a round."""
    count = ceil(max(outcome.case["counts"]) / outcome.case["every"])
    what = f"{count} averages by a ring send"
    expect.sends(what, lambda n: count * 960 * (n - 1) / n, advice=ONE, slack=64)(outcome)


EXERCISE = Exercise(
    name="local_sgd",
    device="cpu",
    given=workers.regression,
    drive=workers.drive_local,
    expected=oracles.local_steps,
    settings={"width": 60, "lr": 0.5},
    always=(
        expect.unlike("the weights that it returned", MISTAKES, AVERAGE),
        expect.equals({"its gradient": OWN, "it returned": AVERAGE}),
    ),
    tests=(
        test("Every rank returns the weights of local SGD in one process, at 1 to 4 ranks", on_each(EVEN)),
        test("Uneven shares count by the steps taken, and ranks without batches still join in", on_each(UNEVEN)),
        test(
            "Within a round nothing is sent and nobody waits; between two rounds all meet",
            on_each(EVEN + UNEVEN, replay.is_silent_within_rounds()),
        ),
        test(
            "A rank sends the weights once a round: 1/H of the bytes of synchronous SGD",
            on_each(EVEN + UNEVEN, averages_by_a_ring()),
        ),
    ),
)
