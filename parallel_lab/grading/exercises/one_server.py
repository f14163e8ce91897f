"""Chapter 05: one parameter server without a bound (Dean et al. 2012, "Downpour SGD"; Li et al. 2014)."""

from parallel_lab.grading import expect, replay, workers
from parallel_lab.grading.exercise import Exercise, cases, on

CASES = cases("counts", ((0, 4),), ((0, 5, 3, 4),))
HELD = cases("counts held", ((0, 6, 3), ((2, 1),)))
MOMENTUM = "At each push: velocity = momentum * velocity + gradient, then w -= lr * velocity."
PUSH = "One gradient per batch goes to the server, and nothing to other workers."
PULL = "Whose push is it? Only that worker wants weights now."
AHEAD = "Whom does the server listen to, and when does it answer?"
ARGUMENTS = ("counts", "lr", "momentum")
fresh = replay.reads_fresh()

EXERCISE = Exercise(
    name="one_server",
    device="cpu",  # gloo receives from any source only there
    given=workers.regression,
    drive=workers.drive_sharded,
    settings={"width": 200, "lr": 0.05, "momentum": 0.9, "servers": 1, "arguments": ARGUMENTS, "pulls_first": True},
    always=(replay.applies_each_gradient(MOMENTUM), expect.forbids()),
    tests={
        "Every push is one step with momentum, with 1 and 3 workers": on(CASES),
        "A worker pushes each gradient once, pulls after it, and nothing else travels": on(
            CASES, fresh, replay.exchanges(PUSH, PULL)
        ),
        # What is wrong without a slow worker is said first: it costs no time.
        "While a worker is slow, the others finish all of their batches": on(CASES, fresh)
        + on(HELD, replay.goes_on(AHEAD)),
    },
)
