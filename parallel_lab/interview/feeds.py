"""What feeds an atom: drills, exercises and questions of self-checks whose outcome shows that its claim is known.

`feeds.yaml` has the pairs. The course logs a drill as a drill and an exercise as an exercise; an atom's log is its own
events and those of what feeds it, so nobody types a rating for what a machine saw.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml

from parallel_lab.course.events import Entry, Event, logged

_FILE = files("parallel_lab.interview").joinpath("feeds.yaml")
_PREFIXES = {"drills": "drill/", "exercises": "exercise/", "quizzes": "quiz/"}


@cache
def feeds() -> dict[str, list[str]]:
    """The keys of the atoms that each logged key feeds: `drill/ring-bytes` to `C7/formula` and `C7/number`."""
    rows = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {f"{prefix}{name}": keys for kind, prefix in _PREFIXES.items() for name, keys in rows[kind].items()}


@cache
def feeders() -> dict[str, list[str]]:
    """The logged keys that feed each atom."""
    found = defaultdict(list)
    for source, keys in feeds().items():
        for key in keys:
            found[key].append(source)
    return dict(found)


def log_of(key: str, reviews: Mapping[str, Entry]) -> list[Event]:
    """The events of `key` and of what feeds it, from the kind `reviews` of the progress."""
    return [event for name in (key, *feeders().get(key, ())) for event in logged(reviews, name)]
