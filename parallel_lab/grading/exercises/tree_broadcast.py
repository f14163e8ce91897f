"""Chapter 02: broadcast along a binomial tree.

Every rank that has the data passes it on in each round, so the number of ranks that have it doubles: n ranks are
served in ceil(log2 n) rounds and the root sends ceil(log2 n) messages, not n - 1 (Thakur, Rabenseifner and Gropp 2005,
section 4).
"""

from parallel_lab.grading.case import WORLDS
from parallel_lab.grading.drivers import in_place, normal
from parallel_lab.grading.exercise import Exercise, on, test
from parallel_lab.grading.expectations import ITEM_BYTES, equals, forbids, heard, messages, sends, takes_rounds
from parallel_lab.grading.oracles import of_root

STEEP = (4, 6)  # ranks at which a star and a chain differ from a tree
OTHERS = ((2, 1, (5,)), (3, 2, (3, 5)), (4, 1, (7,)))
HELP = "Whoever has the data already could help the root."
ORDER = "In each round, how many of the ranks that have the data send? Serve first whoever serves most others."
arrives = equals("Fill `tensor` in place, as dist.broadcast does.")
travels = sends(
    "any broadcast sends",
    most=lambda case: float("inf"),
    least=lambda case: (case.ranks - 1) / case.ranks * 24 * ITEM_BYTES,
)

EXERCISE = Exercise(
    name="tree_broadcast",
    title="Broadcast along a binomial tree",
    level="easy",
    minutes=20,
    notebook="02_collectives",
    given=normal,
    drive=in_place,
    expected=of_root,
    settings={"shape": (24,), "root": 0},
    tests=(
        test("Every rank holds the root's tensor, at 1 to 4 ranks", on(WORLDS, arrives)),
        test(
            "Any rank can be the root, and any shape is carried",
            *(on(ranks, arrives, root=root, shape=shape) for ranks, root, shape in OTHERS),
        ),
        test(
            "It is built from messages, and they carry the data",
            *(on(3, forbids(), travels), on(3, heard(), changed=True)),
        ),
        test(
            "No rank sends more than ceil(log2 n) messages: a tree, not a star",
            on(
                STEEP,
                forbids(),
                arrives,
                messages("a tree sends at most", lambda case: (case.ranks - 1).bit_length(), HELP),
            ),
        ),
        test(
            "All are served after ceil(log2 n) rounds: a tree, not a chain",
            on(
                STEEP,
                *(forbids(), arrives),
                takes_rounds("a binomial tree takes", lambda case: (case.ranks - 1).bit_length(), ORDER),
            ),
        ),
    ),
)
