"""The drills in Chinese: the question, and what is said to a known wrong formula.

A question is written in English where its numbers are drawn; `drills_zh.yaml` has it in Chinese, with places for the
numbers of the English one. What is said to wrong formulas stands in `mistakes_zh.yaml`, by the English sentence. The
derivation is English in both languages: it is made of formulas.
"""

import re
from dataclasses import replace

from parallel_lab.course.drills.engine import Drawn
from parallel_lab.course.terms import read

# A number, but none that is a part of a name, as in H100, 1F1B or float32.
NUMBER = re.compile(r"(?<![A-Za-z\d.])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\dA-Za-z]*[A-Za-z])")
_PLACE = re.compile(r"\{(w|-?\d+)(:-?\d+)?\}")


def spoken_in(language: str, name: str, drawn: Drawn) -> Drawn:
    """Drill `name` as it was drawn, with its words in `language`, `en` or `zh`."""
    if language == "en":
        return drawn
    said = read("mistakes_zh")
    told = tuple((value, said[words]) for value, words in drawn.wrong)
    return replace(drawn, question=_question(name, drawn.question), wrong=told)


def _question(name: str, english: str) -> str:
    known = read("drills_zh")[name]
    if isinstance(known, list):
        known = next(one for one in known if one["when"] in english)
    elif isinstance(known, str):
        known = {"zh": known}
    numbers = NUMBER.findall(english)
    word = re.search(known["word"], english) if "word" in known else None

    def filled(place: re.Match) -> str:
        if place[1] == "w" and word:
            return word[1]
        first = int(place[1])
        start = first - 1 if first > 0 else first
        if place[2]:
            return "、".join(numbers[start : int(place[2][1:]) or None])
        return numbers[start]

    return _PLACE.sub(filled, known["zh"])
