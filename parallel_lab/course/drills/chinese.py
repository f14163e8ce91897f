"""The drills in Chinese: the question, the derivation, and what is said to a known wrong formula.

A drill is written in English where its numbers are drawn. `drills_zh.yaml` has the questions in Chinese, with places
for the numbers of the English one; `derivations_zh.yaml` has the steps in the same way, by the English step, and
`mistakes_zh.yaml` the sentences, by the English sentence. A step that is a formula alone is the same in both languages.
"""

import re
from dataclasses import replace

from parallel_lab.course.drills.engine import Drawn
from parallel_lab.course.terms import read

# A number, but none that is a part of a name, as in H100, 1F1B or float32.
NUMBER = re.compile(r"(?<![A-Za-z\d.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\dA-Za-z]*[A-Za-z])")
_PLACE = re.compile(r"\{(w|-?\d+)(:-?\d+)?\}")


def spoken_in(language: str, name: str, drawn: Drawn) -> Drawn:
    """Drill `name` as it was drawn, with its words in `language`, `en` or `zh`."""
    if language == "en":
        return drawn
    said = read("mistakes_zh")
    told = tuple((value, said[words]) for value, words in drawn.wrong)
    return replace(drawn, question=_question(name, drawn.question), steps=tuple(map(_step, drawn.steps)), wrong=told)


def _step(english: str) -> str:
    numbers = NUMBER.findall(english)
    places = (f"{{{n}}}" for n in range(1, len(numbers) + 1))
    known = read("derivations_zh").get(NUMBER.sub(lambda _: next(places), english))
    return _PLACE.sub(lambda place: numbers[int(place[1]) - 1], known) if known else english


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
