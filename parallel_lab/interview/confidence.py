"""How sure one is, said before the answer: a share from 0 to 1, typed in per cent or picked from a few."""

from typing import Any

from parallel_lab.course import forms
from parallel_lab.interview.words import say

LEVELS = (0.35, 0.5, 0.65, 0.8, 0.95)  # the first is about a guess among three


def confidence_of(text: str | None, language: str = "en") -> float | None:
    """What was typed, `80` or `80 %`; None for nothing.

    Raises:
        ValueError: it is no number from 0 to 100.
    """
    plain = (text or "").strip().rstrip("%％").strip()
    if not plain:
        return None
    try:
        share = float(plain) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(say("confidence.wrong", language, given=text))
    return share


def choice(language: str) -> Any:
    """The widget that asks for it."""
    lines = [say("confidence.level", language, share=f"{100 * level:.0f} %") for level in LEVELS]
    return forms.radio(lines, [str(100 * level) for level in LEVELS], say("confidence.ask", language))
