"""Chapter 05: a sharded parameter server with a bound on staleness (Li et al. 2014; Ho et al. 2013, "SSP")."""

from parallel_lab.grading import expect, replay, workers
from parallel_lab.grading.exercise import Exercise, cases, on

NAMES = "servers counts bound"  # the third bound never binds
CASES = cases(NAMES, (1, (0, 4), 0), (1, (0, 4, 5), 0), (1, (0, 5, 3, 4), 1000), (2, (0, 0, 5, 4), 1))
# The slow one has pushed gradient 0 and works on gradient 1: the others may be `bound` ahead.
HELD = cases(f"{NAMES} held", (1, (0, 3, 5, 5), 0, ((1, 1),)), (2, (0, 0, 7, 3), 2, ((3, 1),)))
MOMENTUM = "At each push: velocity = momentum * velocity + gradient, then w -= lr * velocity."
AHEAD = "It waited although it need not. A worker at clock i may go on while the slowest is at i - bound."
BACK = "When must a server keep a pull waiting? Compare the puller's clock with the slowest worker's."
PUSH = "Each server needs its slice of the gradient, once per batch."
PULL = "Whose pull is it? Only that worker gets the slice."
arguments = ("servers", "counts", "bound", "lr", "momentum")
fresh, exchanges = replay.reads_fresh(), replay.exchanges(PUSH, PULL)

EXERCISE = Exercise(
    name="parameter_server",
    device="cpu",  # gloo receives from any source only there
    given=workers.regression,
    drive=workers.drive_sharded,
    settings={"width": 1001, "lr": 0.05, "momentum": 0.9, "arguments": arguments, "pulls_first": True},
    always=(replay.applies_each_gradient(MOMENTUM), expect.forbids()),
    tests={
        # Step 1
        "With one and two servers, every push is one step on each server's slice": on(CASES),
        "Each server takes and holds its slice of the weights, and no more": on(CASES, replay.takes_its_slice()),
        "A worker pushes a slice to its owner and pulls it from there, once per batch": on(CASES, exchanges),
        # Step 2
        "What a worker pulls is never further behind than the bound": on(CASES, fresh),
        # What is wrong without a slow worker is said first: it costs no time.
        "While a worker is slow, the others go ahead by the bound, and not a step further": (
            on(CASES[:1], fresh) + on(HELD, replay.goes_on(AHEAD, BACK), fresh)
        ),
    },
)
