"""Chapter 02: broadcast along a binomial tree (Thakur, Rabenseifner and Gropp 2005, section 4)."""

from math import inf

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on

STEEP = (4, 6)  # ranks at which a star and a chain differ from a tree
ROOTS = cases("ranks root shape", (2, 1, (5,)), (3, 2, (3, 5)), (4, 1, (7,)))
HELP = "Whoever has the data already could help the root."
ORDER = "In each round, how many of the ranks that have the data send? Serve first whoever serves most others."
travels = expect.sends("a broadcast sends", most=lambda n: inf, least=lambda n: (n - 1) / n * 24 * 8)

EXERCISE = Exercise(
    name="tree_broadcast",
    given=drivers.normal,
    drive=drivers.in_place,
    expected=lambda outcome: [outcome.inputs[outcome.case["root"]][0]] * outcome.ranks,
    settings={"shape": (24,), "root": 0},
    always=(expect.equals("Fill `tensor` in place, as dist.broadcast does."), expect.forbids()),
    tests={
        "Every rank holds the root's tensor, at 1 to 4 ranks": on((1, 2, 3, 4)),
        "Any rank can be the root, and any shape is carried": on(ROOTS),
        "It is built from messages, and they carry the data": on(3, travels) + changed_on(3),
        "No rank sends more than ceil(log2 n) messages: a tree, not a star": on(
            STEEP, expect.messages("a tree sends at most", lambda n: (n - 1).bit_length(), HELP)
        ),
        "All are served after ceil(log2 n) rounds: a tree, not a chain": on(
            STEEP, expect.takes_rounds("a binomial tree takes", lambda n: (n - 1).bit_length(), ORDER)
        ),
    },
)
