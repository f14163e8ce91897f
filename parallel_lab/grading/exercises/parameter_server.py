"""Chapter 05: a sharded parameter server with a bound on staleness (Li et al. 2014; Ho et al. 2013, "SSP").

The weights are cut in one slice a server. A worker pushes each slice of its gradient to the slice's owner and pulls
the weights slice by slice. A gradient may miss the newest updates of others, but none more than `bound` steps back.
"""

from parallel_lab.grading import expectations as expect
from parallel_lab.grading import replay, workers
from parallel_lab.grading.exercise import Exercise, on_each, test
from parallel_lab.grading.workers import Hold

CASES = (
    {"servers": 1, "counts": (0, 4), "bound": 0},
    {"servers": 1, "counts": (0, 4, 5), "bound": 0},
    {"servers": 1, "counts": (0, 5, 3, 4), "bound": 1000},  # never binds
    {"servers": 2, "counts": (0, 0, 5, 4), "bound": 1},
)
HELD = (  # the slow one has pushed gradient 0 and works on gradient 1: the others may be `bound` ahead
    {"servers": 1, "counts": (0, 3, 5, 5), "bound": 0, "holds": (Hold(1, 1, ((2, 2), (3, 2)), ((2, 3), (3, 3))),)},
    {"servers": 2, "counts": (0, 0, 7, 3), "bound": 2, "holds": (Hold(3, 1, ((2, 4),), ((2, 5),)),)},
)
MOMENTUM = "At each push: velocity = momentum * velocity + gradient, then w -= lr * velocity."
SEND = "In a collective every rank waits for the slowest. Send to the one rank that needs it."
AHEAD = "It waited although it need not. A worker at clock c may go on while the slowest is at c - bound."
BACK = "When must a server keep a pull waiting? Compare the puller's clock with the slowest worker's."
PUSH = "Each server needs its slice of the gradient, once a batch."
PULL = "Whose pull is it? Only that worker gets the slice."


EXERCISE = Exercise(
    name="parameter_server",
    device="cpu",  # gloo receives from any source only there
    given=workers.regression,
    drive=workers.drive_server,
    settings={"width": 1001, "lr": 0.05, "momentum": 0.9, "reports_staleness": False, "pulls_first": True},
    always=(replay.applies_each_gradient(MOMENTUM), expect.forbids(advice=SEND)),
    tests=(
        test(
            "Every push is one step with momentum on its slice, with 1 to 3 workers and 1 or 2 servers", on_each(CASES)
        ),
        test(
            "Each server takes and holds its slice of the weights, and no more",
            on_each(CASES, replay.takes_its_slice()),
        ),
        test(
            "A worker pushes a slice to its owner and pulls it from there, once a batch; nothing else travels",
            on_each(CASES, replay.exchanges(PUSH, PULL)),
        ),
        test(
            "A worker pulls after each push, and what it pulls is never further behind than the bound",
            on_each(CASES, replay.reads_own(), replay.reads_within_bound()),
        ),
        test(
            "While a worker is slow, the others go ahead by the bound, and not a step further",
            on_each(CASES, replay.reads_own()),  # what is wrong without a slow worker is said first: it costs no time
            on_each(HELD, replay.goes_on(AHEAD, BACK), replay.reads_own(), replay.reads_within_bound()),
        ),
    ),
)
