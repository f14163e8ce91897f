"""Real documents that are there without a download: the topics of CPython's own help, and their paragraphs.

`pydoc_data.topics` repeats itself: a section such as `if` stands in its own topic and in `compound` as well. So its
duplicates are those of a real collection, which nobody put there for a lesson.
"""

from functools import cache
from pydoc_data.topics import topics

from parallel_lab.model.data import share


@cache
def documents() -> dict[str, str]:
    """The help topics by name, in the order of their names."""
    return {name: topics[name] for name in sorted(topics)}


@cache
def unique_documents() -> dict[str, str]:
    """The help topics without the paragraphs that stood in a topic before; none of two paragraphs is equal then."""
    seen: set[str] = set()
    unique = {}
    for name, text in documents().items():
        parts = [part for part in dict.fromkeys(text.split("\n\n")) if part not in seen]
        seen.update(parts)
        unique[name] = "\n\n".join(parts)
    return {name: text for name, text in unique.items() if text}


@cache
def paragraphs(least: int = 80) -> tuple[str, ...]:
    """The paragraphs of all topics that have at least `least` characters, in their order, repeats included."""
    found = (part.strip() for text in documents().values() for part in text.split("\n\n"))
    return tuple(part for part in found if len(part) >= least)


def mine(items: list | tuple, rank: int, world: int) -> list:
    """The contiguous share of `items` that `rank` works on; the shares in rank order are the items."""
    return list(items[share(len(items), rank, world)])
