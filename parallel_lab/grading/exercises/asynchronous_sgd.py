"""Chapter 04: asynchronous SGD through one server (Dean et al. 2012, "Downpour"; Recht et al. 2011 on why it may work).

Whoever finishes a gradient hands it in and goes on at once with the newest weights. Nobody waits for a slow worker; the
price is staleness, the number of updates between the weights a gradient was computed at and those it is applied to.
"""

from parallel_lab.grading import expectations as expect
from parallel_lab.grading import replay, workers
from parallel_lab.grading.exercise import Exercise, on_each, test
from parallel_lab.grading.workers import Hold

CASES = tuple({"counts": counts} for counts in ((0, 5), (0, 4, 6), (0, 5, 3, 4)))  # batches of each rank
HELD = (  # one slow worker, then two
    {"counts": (0, 6, 3), "holds": (Hold(rank=2, batch=1, until=((1, 6),)),)},
    {"counts": (0, 3, 3, 6), "holds": tuple(Hold(rank=slow, batch=0, until=((3, 6),)) for slow in (1, 2))},
)
SEND = "In a collective every rank waits for the slowest. Send to the one rank that needs it."
PUSH = "One gradient a batch goes to the server, and nothing to other workers."
PULL = "Whose push is it? Only that worker wants weights now; the others have work to do."
listens = replay.goes_on("Whom does the server listen to, and when does it answer?")


EXERCISE = Exercise(
    name="asynchronous_sgd",
    device="cpu",  # gloo receives from any source only there
    given=workers.regression,
    drive=workers.drive_asynchronous,
    settings={"width": 64, "lr": 0.8, "servers": 1, "momentum": 0.0, "reports_staleness": True, "pulls_first": False},
    always=(replay.applies_each_gradient("Each gradient is one step: w -= lr g."), expect.forbids(advice=SEND)),
    tests=(
        test("Each gradient of each worker is applied, alone and once, as reported", on_each(CASES)),
        test("A worker computes at weights that it pulled after its last push", on_each(CASES, replay.reads_own())),
        test(
            "A worker sends a gradient a batch, and the server answers him alone with weights; nothing else travels",
            on_each(CASES, replay.exchanges(PUSH, PULL)),
        ),
        test(
            "While slow workers work on one gradient, a fast one finishes all of its own",
            on_each(CASES, replay.reads_own()),  # what is wrong without slow workers is said first: it costs no time
            on_each(HELD, listens),
        ),
        test(
            "The staleness reported for each update is the true one, also that of a slow worker",
            on_each(CASES + HELD, replay.reports_staleness()),
        ),
    ),
)
