"""The batches of unequal sequences of chapter 15, drawn for each check. Ranks import this module."""

import random

from parallel_lab.model.lengths import draw

LONGEST = 1500


def batches(dice: random.Random, ranks: tuple[int, ...], wide: bool = False, slow: bool = False) -> list[tuple]:
    """Calls of `balanced_batches`: for each number of ranks a batch of real lengths; one rank may be slow.

    A long sequence stands last: who deals them out as they come finds all ranks even, and makes one of them late. In
    every other batch the slow rank is the first one: who gives the longest to whoever has least gives it to that rank.
    """
    calls = []
    for place, n in enumerate(ranks):
        lengths = draw(n * dice.randint(24, 32), longest=LONGEST, seed=dice.randrange(2**32))
        lengths.append(LONGEST)
        speeds = [1.0] * n
        if place % 2 == 0:
            speeds[0] = 0.3
        else:
            speeds[dice.randrange(n)] = dice.choice((0.3, 0.5, 0.6))
        calls.append((lengths, n, dice.choice((32, 64)) if wide else None, speeds if slow else None))
    return calls
