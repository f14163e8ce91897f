"""The task of chapter 23: an answer that names the cause of a broken job and brings the mended program.

As in `drivers`, a driver runs learner code in a rank. Ranks import this module.
"""

from collections.abc import Callable

import torch

from parallel_lab.clinic.cases import CASES
from parallel_lab.clinic.instruments import work
from parallel_lab.grading.rank_side import MOST_RANKS, Case, name, plain


def seeded(case: Case, rank: int, generator: torch.Generator) -> tuple[int]:
    """The seed that all ranks draw the data of the job from."""
    return (generator.initial_seed() // MOST_RANKS,)


def treat(fn: Callable, case: Case, seed: int) -> dict:
    """Asks `fn(number)` for cause and job, and runs the job as the ward does."""
    answer = fn(case["job"])
    if type(answer) not in (tuple, list) or len(answer) != 2:
        raise TypeError(f"clinic({case['job']}) returned {name(plain(answer))}: expected a cause and a function")
    cause, job = answer
    if not isinstance(cause, str) or not callable(job):
        raise TypeError(
            f"clinic({case['job']}) returned {cause!r} and {name(plain(job))}: expected (a name, a function)"
        )
    return {"cause": cause} | work(job, CASES[case["job"]].given, seed)
