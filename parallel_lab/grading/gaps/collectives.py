"""The gaps of chapter 02: the chunks of a ring, half a ring on real ranks, and a tensor that does not divide."""

import torch

from parallel_lab.grading import drivers, expect
from parallel_lab.grading.exercise import Exercise, changed_on, on
from parallel_lab.grading.gaps.forms import function_gap

LENGTH = 1000
EVERY_RANK = [(rank, n) for n in (2, 3, 5, 8) for rank in range(n)]
IN_ORDER = "Row r has to be the tensor of rank r. Which rank's tensor comes in in round i?"
ONCE = "No tensor passes a link twice: n - 1 rounds bring all of them, and only what came in is sent on."
ONE_HOP = "In a ring a rank sends to its right neighbor only."


def ring_chunks(rank, n):
    """The chunks that `rank` of `n` sends in a ring all-reduce, round by round, beginning with its own number."""
    return [(rank - i) % n for i in range(2 * (n - 1))]


def ring_elements(elements, n, rank):
    """How many elements `rank` sends in that ring; the first chunks have one more where n does not divide."""
    sizes = [elements // n + (chunk < elements % n) for chunk in range(n)]
    return sum(sizes[chunk] for chunk in ring_chunks(rank, n))


def _without(first, second):
    """Twice the tensor less the chunks `rank + first` and `rank + second`."""

    def elements_of(elements, n, rank):
        sizes = [elements // n + (chunk < elements % n) for chunk in range(n)]
        return 2 * elements - sizes[(rank + first) % n] - sizes[(rank + second) % n]

    return elements_of


def _cut(size_of):
    """The elements where chunk i has `size_of(elements, n, i)`."""
    return lambda elements, n, rank: sum(size_of(elements, n, chunk) for chunk in ring_chunks(rank, n))


def _half(elements, n, rank):
    sizes = [elements // n + (chunk < elements % n) for chunk in range(n)]
    return sum(sizes[chunk] for chunk in ring_chunks(rank, n)[: n - 1])


GAPS = (
    function_gap(
        ring_chunks,
        tests={
            "On 4 ranks, each sends the right chunk in each round": [(rank, 4) for rank in range(4)],
            "On any number of ranks": EVERY_RANK,
        },
        mistakes={
            "So begins the ring of the text above. Here rank r begins with chunk r, its own number.": (
                lambda rank, n: [(rank - 1 - i) % n for i in range(2 * (n - 1))]
            ),
            "Chunks have numbers from 0 to n - 1: below chunk 0 comes the last one, and after the last one chunk 0.": [
                lambda rank, n: [rank - i for i in range(2 * (n - 1))],
                lambda rank, n: [rank + i for i in range(2 * (n - 1))],
                lambda rank, n: [rank - i for i in range(n - 1)] + [rank + 1 - i for i in range(n - 1)],
            ],
            "Return one list, the rounds of both halves in a row.": (
                lambda rank, n: [ring_chunks(rank, n)[: n - 1], ring_chunks(rank, n)[n - 1 :]]
            ),
            "These are the rounds of one half. How many rounds has the other?": (
                lambda rank, n: ring_chunks(rank, n)[: n - 1]
            ),
            "Chunks come from the left neighbor: what did rank r - 1 send in the round before?": [
                lambda rank, n: [(rank + i) % n for i in range(2 * (n - 1))],
                lambda rank, n: ring_chunks(rank, n)[: n - 1] + [(rank + 1 + i) % n for i in range(n - 1)],
                lambda rank, n: [(rank + i) % n for i in range(n - 1)] + [(rank + 1 + i) % n for i in range(n - 1)],
            ],
            "The ring of the task has 2 (n - 1) rounds. After how many has a chunk been at every rank?": [
                lambda rank, n: [(rank - i) % n for i in range(2 * n)],
                lambda rank, n: [(rank - i) % n for i in range(2 * n - 1)],
                lambda rank, n: [(rank - i) % n for i in range(n)],
                lambda rank, n: [(rank - i) % n for i in range(n)] + [(rank + 1 - i) % n for i in range(n)],
                lambda rank, n: [(rank - i) % n for i in range(2 * n - 3)],
            ],
            "With which chunk does the second half begin? Which is finished on this rank when the first is over?": [
                lambda rank, n: ring_chunks(rank, n)[: n - 1] * 2,
                lambda rank, n: ring_chunks(rank, n)[: n - 1] + [(rank - 1 - i) % n for i in range(n - 1)],
            ],
        },
    ),
    Exercise(
        name="ring_all_gather",
        gap=True,
        given=drivers.normal,
        expected=lambda outcome: [torch.stack([given[0] for given in outcome.inputs])] * outcome.ranks,
        settings={"shape": (LENGTH,)},
        tests={
            "Every rank returns the tensors of all ranks in their order, at 1 to 4 ranks": on(
                (1, 2, 3, 4), expect.equals(IN_ORDER), expect.keeps_input()
            ),
            "They come by messages: each rank sends n-1 tensors, to its right neighbor": [
                *on(
                    (2, 4),
                    expect.forbids(),
                    expect.sends("a ring sends", lambda n: (n - 1) * LENGTH * 8, advice=ONCE),
                    expect.sends_to_the_right(ONE_HOP),
                ),
                *changed_on(3),
            ],
        },
    ),
    function_gap(
        ring_elements,
        tests={
            "Where n divides the tensor": lambda dice: [(n * dice.randrange(10, 1000), n, 0) for n in (2, 3, 4, 8)],
            "Where it does not": [(1003, 3, 0), (1003, 3, 1), (1003, 3, 2), (5, 4, 0), (5, 4, 3), (2, 3, 1)],
        },
        mistakes={
            "So goes the ring of the text above. In this one rank r begins with chunk r, its own number.": _without(
                0, 1
            ),
            "Each half leaves one chunk out. Which one does this rank only receive, and never send on?": [
                _without(0, 0),
                _without(-1, -1),
                _without(-1, 0),
                _without(-1, -2),
            ],
            "The first chunks have one element more where n does not divide: how large is chunk i?": [
                _cut(lambda elements, n, chunk: elements // n + (chunk >= n - elements % n)),
                _cut(lambda elements, n, chunk: elements // n + elements % n * (chunk == n - 1)),
                _cut(lambda elements, n, chunk: elements // n + elements % n * (chunk == 0)),
                _cut(lambda elements, n, chunk: max(0, min(-(-elements // n), elements - chunk * -(-elements // n)))),
                _cut(lambda elements, n, chunk: elements // n),
                lambda elements, n, rank: 2 * elements - 2 * -(-elements // n),
                lambda elements, n, rank: 2 * (n - 1) * (elements // n + (rank < elements % n)),
            ],
            "Each half sends all chunks but one. Which does it leave out?": [
                lambda elements, n, rank: 2 * elements,
                lambda elements, n, rank: elements,
            ],
            "You count the first half twice. The second half begins with another chunk: which one does it leave out?": (
                lambda elements, n, rank: 2 * _half(elements, n, rank)
            ),
            "That is one half of the ring. The other sends as many chunks.": _half,
            "That is the mean over the ranks. Chunks differ by an element: which two does this rank send only once?": (
                lambda elements, n, rank: 2 * (n - 1) * elements / n
            ),
            "Rounded, the mean over the ranks. Which two chunks does this rank send only once?": (
                lambda elements, n, rank: 2 * (n - 1) * elements // n
            ),
            "That counts each chunk as the largest. How many elements has chunk i?": (
                lambda elements, n, rank: 2 * (n - 1) * -(-elements // n)
            ),
        },
    ),
)
