"""Chapter 04: local SGD, also called federated averaging (McMahan et al. 2017, algorithm 1; Stich 2019)."""

from parallel_lab.grading import expect, oracles, workers
from parallel_lab.grading.exercise import Exercise, cases, on

NAMES = "counts every rounds"
EVEN = cases(NAMES, ((6,), 3, 2), ((6, 6), 3, 2), ((6, 6, 6), 2, 3), ((4, 4, 4, 4), 4, 1), ((3, 3), 1, 3))
UNEVEN = cases(NAMES, ((7, 7), 3, 3), ((7, 5, 2), 3, 3), ((2, 6, 5, 1), 2, 3), ((3, 2), 10, 1))
AVERAGE = "After `every` local steps, and once after the last ones, all take the average, weighted by their steps."
OWN = "Within a round each rank steps on its own weights; a round begins with the average."
ONE = "How many averages are there? One all_reduce of the weights each is enough."
MISTAKES = {
    "the weights were averaged after every step": {"every": 1},
    "the weights were never averaged": {"share": lambda steps: 0},
    "the weights were averaged only at the end": {"every": 1000},
    "each rank counted alike, whatever it had done": {"share": lambda steps: 1},
}
rings = expect.sends("{} averages by a ring send", lambda n: 960 * (n - 1) / n, advice=ONE, slack=64, times="rounds")

EXERCISE = Exercise(
    name="local_sgd",
    device="cpu",
    given=workers.regression,
    drive=workers.drive,
    expected=oracles.local_steps,
    settings={"width": 60, "lr": 0.5, "arguments": ("counts", "every", "lr")},
    always=(
        expect.unlike("the weights that it returned", MISTAKES, AVERAGE),
        expect.equals({"its gradient": OWN, "it returned": AVERAGE}),
    ),
    tests={
        "Every rank returns the weights of local SGD in one process, at 1 to 4 ranks": on(EVEN),
        "Uneven shares count by the steps taken, and ranks without batches still join in": on(UNEVEN),
        "Within a round nothing is sent and nobody waits; between two rounds all meet": on(
            EVEN + UNEVEN, expect.is_silent_within_rounds()
        ),
        "A rank sends the weights once per round: 1/H of the bytes of synchronous SGD": on(EVEN + UNEVEN, rings),
    },
)
