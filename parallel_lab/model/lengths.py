"""The lengths of real sequences: pages and paragraphs of CPython's help, in which a byte is a token.

They are shipped as counts in `lengths.csv`, so that every version of Python has the same; the text itself differs a
little between versions.
"""

import csv
import random
from functools import cache
from importlib.resources import files
from pydoc_data.topics import topics


@cache
def lengths(kind: str = "paragraph") -> tuple[int, ...]:
    """The lengths in tokens, sorted: of each `topic`, a page of the help, or each `paragraph`, repeats left out.

    Raises:
        ValueError: there is no such kind.
    """
    with files("parallel_lab.model").joinpath("lengths.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found = [int(row["tokens"]) for row in rows if row["kind"] == kind for _ in range(int(row["count"]))]
    if not found:
        raise ValueError(f"there are no lengths of {kind!r}: expected topic or paragraph")
    return tuple(found)


def lengths_here(kind: str = "paragraph") -> tuple[int, ...]:
    """As `lengths`, from the help of the Python that runs."""
    parts = topics.values()
    if kind == "paragraph":
        parts = {part.strip() for text in parts for part in text.split("\n\n") if part.strip()}
    return tuple(sorted(len(part.encode()) for part in parts))


def draw(count: int, *, kind: str = "paragraph", longest: int | None = None, seed: int = 0) -> list[int]:
    """A batch: the lengths of `count` sequences, drawn from the real ones without repeats; cut at `longest`."""
    drawn = random.Random(seed).sample(lengths(kind), count)
    return [min(length, longest or length) for length in drawn]
