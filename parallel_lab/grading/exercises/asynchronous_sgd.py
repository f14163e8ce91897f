"""Chapter 04: asynchronous SGD through one server (Dean et al. 2012, "Downpour"; Recht et al. 2011, "Hogwild")."""

from parallel_lab.grading import expect, replay, workers
from parallel_lab.grading.exercise import Exercise, cases, on

CASES = cases("counts", ((0, 5),), ((0, 4, 6),), ((0, 5, 3, 4),))  # batches of each rank
HELD = cases("counts held", ((0, 6, 3), ((2, 1),)), ((0, 3, 3, 6), ((1, 0), (2, 0))))  # one slow worker, then two
PUSH = "One gradient per batch goes to the server, and nothing to other workers."
PULL = "Whose push is it? Only that worker wants weights now; the others have work to do."
listens = replay.goes_on("Whom does the server listen to, and when does it answer?")
rules = {"servers": 1, "momentum": 0.0, "reports_staleness": True, "pulls_first": False}

EXERCISE = Exercise(
    name="asynchronous_sgd",
    device="cpu",  # gloo receives from any source only there
    given=workers.regression,
    drive=workers.drive,
    settings={"width": 64, "lr": 0.8, "arguments": ("counts", "lr"), **rules},
    always=(replay.applies_each_gradient("Each gradient is one step: w -= lr g."), expect.forbids()),
    tests={
        # Step 1
        "Each gradient of each worker is applied, alone and once, as reported": on(CASES),
        "A worker computes at weights that it pulled after its last push": on(CASES, replay.reads_fresh()),
        "A worker sends one gradient per batch and alone gets the new weights; nothing else travels": on(
            CASES, replay.exchanges(PUSH, PULL)
        ),
        # Step 2. What is wrong without slow workers is said first: it costs no time.
        "While slow workers work on one gradient, a fast one finishes all of its own": (
            on(CASES, replay.reads_fresh()) + on(HELD, listens)
        ),
        # Step 3
        "The staleness reported for each update is the true one, also that of a slow worker": on(
            CASES + HELD, replay.reports_staleness()
        ),
    },
)
