"""Chapter 02: all-to-all from sends and receives: each rank keeps one block and sends (n-1)/n of what it holds."""

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.values import differ

BLOCK_BYTES = 40 * 3 * 8
SHAPES = cases("ranks shape", (3, (1,)), (4, (2, 1, 5)), (5, (7,)))
ITEM = "Which of your blocks does rank i want, and at which place do you put what comes from rank i?"
TO_ALL = "Do you send your own block to everybody? Block i of what you hold is the one for rank i."
OWN = "A rank's block for itself is not sent: who puts it into the list?"
WANTED = "Of all the blocks that you hold, which does rank i want?"


@expect.each_rank
def not_own_to_all(outcome: Outcome, rank: int, where: str) -> None:
    """What came from the other ranks is not the block that each of them had for itself."""
    got, others = outcome.results[rank], [other for other in range(outcome.ranks) if other != rank]
    if not others or not isinstance(got, list) or len(got) != outcome.ranks:
        return
    if not any(differ(got[other], outcome.inputs[other][0][other]) for other in others):
        came = f"item {others[0]} is the block that rank {others[0]} had for itself"
        raise Wrong(f"{where}: {came}, expected the one that it had for rank {rank}", TO_ALL)


@expect.each_rank
def own_is_kept(outcome: Outcome, rank: int, where: str) -> None:
    """Where all that came is right, so is the block that a rank has for itself."""
    got, right = outcome.results[rank], outcome.expected[rank]
    if not isinstance(got, list) or len(got) != outcome.ranks or not differ(got[rank], right[rank]):
        return
    if not any(differ(got[i], right[i]) for i in range(outcome.ranks) if i != rank):
        raise Wrong(f"{where}: item {rank} is not the block that this rank has for itself", OWN)


EXERCISE = Exercise(
    name="all_to_all",
    given=drivers.blocks,
    expected=lambda outcome: [[given[0][rank] for given in outcome.inputs] for rank in range(outcome.ranks)],
    settings={"shape": (40, 3)},
    always=(not_own_to_all(), own_is_kept(), expect.equals(ITEM), expect.keeps_input(), expect.forbids()),
    tests={
        "Item i of each rank's result is the block that rank i had for it, at 1 to 4 ranks": on((1, 2, 3, 4)),
        "Blocks of any shape are carried, and more ranks too": on(SHAPES),
        "It is built from messages, and they carry the data": on(3) + changed_on(3),
        "Each rank sends n - 1 blocks, one to each other rank, and nothing that its receiver throws away": on(
            (2, 3, 4),
            expect.sends("an all-to-all sends", lambda n: (n - 1) * BLOCK_BYTES, advice=WANTED),
            expect.messages("an all-to-all sends", lambda n: n - 1, "One message per peer will do."),
            expect.peers(lambda n: n - 1, "Send each block straight to its owner."),
        ),
    },
)
