"""Earlier rounds of practice, ladders and debugging rounds, beside the one that has just ended."""

from parallel_lab.course import progress
from parallel_lab.interview.words import say
from parallel_lab.trace.units import format_share


def before(kind: str, key: str, language: str) -> str:
    """How many rounds of this kind came before the one of `key`, and their best share; empty where there is none."""
    reports = [one for at, one in progress.read()["rounds"].items() if one.get("kind") == kind and at < key]
    if not reports:
        return ""
    best = max(one["points"] / one["most"] for one in reports)
    return say("kept.before", language, count=len(reports), best=format_share(best))
