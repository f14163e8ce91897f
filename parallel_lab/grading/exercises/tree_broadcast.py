"""Chapter 02: broadcast along a binomial tree (Thakur, Rabenseifner and Gropp 2005, section 4).

Every rank that has the data passes it on in each round: n ranks are served in ceil(log2 n) rounds, and the root sends
ceil(log2 n) messages, not n - 1.
"""

from math import inf

from parallel_lab.grading import drivers, oracles
from parallel_lab.grading import expectations as expect
from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.exercise import Exercise, changed_on, on, test

STEEP = (4, 6)  # ranks at which a star and a chain differ from a tree
HELP = "Whoever has the data already could help the root."
ORDER = "In each round, how many of the ranks that have the data send? Serve first whoever serves most others."
travels = expect.sends("a broadcast sends", most=lambda n: inf, least=lambda n: (n - 1) / n * 24 * 8)

EXERCISE = Exercise(
    name="tree_broadcast",
    given=drivers.normal,
    drive=drivers.in_place,
    expected=oracles.of_root,
    settings={"shape": (24,), "root": 0},
    always=(expect.equals("Fill `tensor` in place, as dist.broadcast does."), expect.forbids()),
    tests=(
        test("Every rank holds the root's tensor, at 1 to 4 ranks", on(WORLDS)),
        test(
            "Any rank can be the root, and any shape is carried",
            *(on(n, root=root, shape=shape) for n, root, shape in ((2, 1, (5,)), (3, 2, (3, 5)), (4, 1, (7,)))),
        ),
        test("It is built from messages, and they carry the data", on(3, travels), changed_on(3)),
        test(
            "No rank sends more than ceil(log2 n) messages: a tree, not a star",
            on(STEEP, expect.messages("a tree sends at most", lambda n: (n - 1).bit_length(), HELP)),
        ),
        test(
            "All are served after ceil(log2 n) rounds: a tree, not a chain",
            on(STEEP, expect.takes_rounds("a binomial tree takes", lambda n: (n - 1).bit_length(), ORDER)),
        ),
    ),
)
