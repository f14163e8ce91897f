"""Chapter 02: all-reduce by a ring, reduce-scatter followed by all-gather (Patarasuk and Yuan 2009)."""

from math import prod

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, cases, changed_on, on
from parallel_lab.grading.rank_side import Case

LENGTH = 12_000  # divides by 2, 3 and 4
UNEVEN = cases("ranks shape", (3, (7,)), (4, (5, 3)), (2, (1,)), (3, (2,)), (4, (3, 1, 7)))  # also fewer than ranks
PART = "Which part of the tensor does the neighbor really need in a round, and are there more than n - 1 in each half?"
SIGNAL = (
    "Each half has n - 1 rounds, and nothing is sent between them: a message received is itself the signal to go on."
)
ROUNDS = "How many rounds does it take until each chunk is summed, and how many more until every rank has all of them?"
ONE_HOP = "On a real ring of cables only the neighbor is one hop away."
ANY_SIZE = "Return the sum over all ranks, in the shape that came: chunks may differ in length, and may be empty."
FEWER = "torch.chunk makes fewer than n chunks of less than n elements: torch.tensor_split makes n, some of them empty."
right, keeps = expect.equals("Return the sum over all ranks."), expect.keeps_input()


def raised(case: Case, error: str) -> str:
    """The advice for an answer that raises where n does not divide the tensor."""
    size = prod(case["shape"])
    if size % case.ranks == 0:
        return ""
    return FEWER if error == "IndexError" and size < case.ranks else ANY_SIZE


EXERCISE = Exercise(
    name="ring_all_reduce",
    given=drivers.normal,
    expected=lambda outcome: [sum(given[0] for given in outcome.inputs)] * outcome.ranks,
    settings={"shape": (LENGTH,)},
    raised=raised,
    tests={
        # Step 1
        "Every rank returns the sum, at 1 to 4 ranks, and leaves its input alone": on((1, 2, 3, 4), right, keeps),
        "It is built from messages to one neighbor, and they carry the data": (
            on((2, 3, 4), expect.forbids(), expect.peers(lambda n: 1, ONE_HOP)) + changed_on(3)
        ),
        # Step 2
        "Each rank sends 2 (n-1)/n of the tensor, and no more": on(
            (2, 3, 4), expect.sends("a ring sends", lambda n: 2 * (n - 1) * LENGTH // n * 8, advice=PART)
        ),
        "Each rank sends 2 (n-1) messages": on(
            (2, 3, 4), expect.messages("a ring sends", lambda n: 2 * (n - 1), SIGNAL, few=ROUNDS)
        ),
        # Step 3
        "Sizes that do not divide by the number of ranks work, and keep their shape": on(
            UNEVEN, expect.equals(ANY_SIZE)
        ),
    },
)
