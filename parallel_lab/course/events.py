"""The log of reviews: what was recalled, when, how well and who said so; the union of two progress files.

A key's log is a list of events, `{"at": "2026-11-28T15:30:00+00:00", "rating": 3, "from": "drill"}`, and may hold the
`confidence` that was stated before the answer. Nothing that follows from a log is stored, so the union of two logs is
all that it takes to bring two machines together.

What a machine saw needs no typing of ratings: passed at once is Good, passed with hints or after a failure is Hard,
failed is Again.
"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

AGAIN, HARD, GOOD, EASY = 1, 2, 3, 4
SOURCES = ("self", "drill", "exercise", "quiz", "mock", "ladder", "clinic")
_WHOLE = ("interviews", "preparations")  # of two entries one stays as it is; no part of the other is taken up
Event = dict[str, Any]
Entry = dict[str, Any]
Entries = Mapping[str, Mapping[str, Entry]]


def event(at: datetime, rating: int, source: str, confidence: float | None = None) -> Event:
    """One event of a log.

    Raises:
        ValueError: the rating, the source or the confidence is none.
    """
    if rating not in (AGAIN, HARD, GOOD, EASY):
        raise ValueError(f"{rating!r} is no rating: 1 (again), 2 (hard), 3 (good) or 4 (easy)")
    if source not in SOURCES:
        raise ValueError(f"{source!r} is none of {', '.join(SOURCES)}")
    if confidence is not None and not 0 <= confidence <= 1:
        raise ValueError(f"a confidence of {confidence!r} is not from 0 to 1")
    said = {} if confidence is None else {"confidence": confidence}
    return {"at": at.isoformat(timespec="seconds"), "rating": int(rating), "from": source, **said}


def logged(reviews: Mapping[str, Entry], key: str) -> list[Event]:
    """The events of `key`, in the order of time, from the kind `reviews` of the progress."""
    return reviews.get(key, {}).get("log", [])


def day(moment: str | datetime) -> str:
    """The day of a moment where the learner is, as `2026-11-28`; logs hold UTC."""
    return datetime.fromisoformat(str(moment)).astimezone().date().isoformat()


def seen(log: list[Event], at: datetime, passed: bool, helped: bool = False) -> int | None:
    """The rating of what a machine saw; None where it adds nothing to what the log holds of that day.

    The second failure of a day is the same failure, and the second pass of a day is the same knowledge.
    """
    last = log[-1]["rating"] if log and day(log[-1]["at"]) == day(at) else None
    if not passed:
        return None if last == AGAIN else AGAIN
    if last in (HARD, GOOD, EASY):
        return None
    return HARD if helped or last == AGAIN else GOOD


def union(one: list[Event], other: list[Event]) -> list[Event]:
    """The events of both logs, in the order of time. One that stands in both stands once."""
    both = Counter(map(_text, one)) | Counter(map(_text, other))
    return sorted((json.loads(text) for text in both.elements()), key=lambda e: (e["at"], _text(e)))


def merged(mine: Entries, other: Entries) -> dict[str, dict[str, Entry]]:
    """Two progress files as one; which comes first, and how often they are merged, makes no difference."""
    kinds = [*mine, *(kind for kind in other if kind not in mine)]
    return {kind: _group(kind, mine.get(kind, {}), other.get(kind, {})) for kind in kinds}


def _group(kind: str, mine: Mapping[str, Entry], other: Mapping[str, Entry]) -> dict[str, Entry]:
    names = [*mine, *(name for name in other if name not in mine)]
    return {name: _entry(mine.get(name, {}), other.get(name, {}), kind in _WHOLE) for name in names}


def _entry(mine: Entry, other: Entry, whole_only: bool) -> Entry:
    """The later entry, with the larger of what is counted and the union of what is logged.

    Of two entries of one day no field is the later one; the larger stays, so that merging once more changes nothing.
    """
    first, last = sorted((mine, other), key=lambda entry: (str(entry.get("when", "")), _text(entry)))
    if whole_only:
        return last
    whole, one_day = first | last, first.get("when") == last.get("when")
    for key in first.keys() & last.keys():
        if key == "log":
            whole[key] = union(first[key], last[key])
        elif key in ("best", "checks", "hints", "right", "skipped", "steps"):
            whole[key] = max(first[key], last[key])
        elif one_day:
            whole[key] = max(first[key], last[key], key=_text)
    return whole


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
