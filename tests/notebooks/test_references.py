"""A reference to a chapter names the one that teaches what the sentence speaks of."""

import functools
import json
import re
from pathlib import Path

import pytest

from parallel_lab.course.chapters import TITLES
from parallel_lab.course.questions import index

ROOT = Path(__file__).resolve().parents[2]
TOPICS = {  # what a sentence speaks of, and the chapters that teach it
    r"expert|MoE|long context|ring attention|Ulysses|(?<!pipeline or )context parallel": "10",
    r"pipeline|1F1B": "09 11",
    r"tensor parallel": "07 08 11",
    r"ZeRO|FSDP|sharded data parallel": "06",
    r"parameter server|bounded staleness|consistency|asynchronous|stale gradient|local SGD|DiLoCo": "04 05",
    r"interleaved|zero-bubble": "09",
    r"(?<=tensor, pipeline or )context parallel": "07 11",
    r"mixed precision|bfloat16|float8|loss scal": "12",
    r"pruning|quantization": "13",
    r"recomputation|activation checkpoint": "01 06 14",
    r"fusion|profil": "14",
    r"fault toleran|watchdog|restart|silent": "00 16",
    r"flight recorder": "00 02 16",
    r"(?<!sharded )data.?parallel|\bDDP\b|bucket": "03",
    r"tokens per GPU": "01 03",
    r"(?<!instead of the )all-reduce|collective|ring's|binomial tree|hierarch|PXN": "02",
    r"reduce-scatter": "02 06",
    r"\bhid(?:e|es|den)\b": "03 06 08 14",
    r"security|encrypt": "19",
    r"energy|power cap": "20",
}
SENTENCE = re.compile(r"(?:[^.;:|\n]|\n(?!\n))*?\bchapters? (\d\d)\b")


@functools.cache
def texts() -> dict[str, str]:
    """The prose of chapters, solutions, cards, self-checks and notes, by file."""
    found = {}
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "solutions").glob("*.ipynb")]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[f"{path.parent.name}/{path.name}"] = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    for path in [*(ROOT / "parallel_lab").rglob("*.md"), *(ROOT / "parallel_lab/course").rglob("*.yaml")]:
        found[str(path.relative_to(ROOT / "parallel_lab"))] = path.read_text(encoding="utf-8")
    return found


def wrong(text: str) -> list[str]:
    """The references that name no chapter, or another than the one that teaches the topic named last before them."""
    found = []
    for match in SENTENCE.finditer(text):
        said, number = re.sub(r"^ \([^)]*\)", "", match[0]), match[1]  # what is in brackets is said of the one before
        spoken = [
            (place.start(), chapters)
            for topic, chapters in TOPICS.items()
            for place in re.finditer(topic, said, re.IGNORECASE)
        ]
        if number not in TITLES or (spoken and number not in max(spoken)[1].split()):
            found.append(" ".join(said.split())[-120:])
    return found


@pytest.mark.parametrize("name", texts())
def test_a_reference_names_the_chapter_of_its_topic(name):
    assert wrong(texts()[name]) == []


def test_a_wrong_reference_is_found():
    assert wrong("Expert parallelism (chapter 13) lives on it. ZeRO (chapter 06) does not; see chapter 77.") == [
        "Expert parallelism (chapter 13",
        "see chapter 77",
    ]


def test_a_card_that_a_chapter_announces_for_another_belongs_there():
    """`Question D18 (...) is answered in chapter 14`."""
    said = re.compile(r"\b[Qq]uestion ([A-F]C?\d+)\b[^.]{0,80}?\bchapter (\d\d)")
    pairs = {pair for text in texts().values() for pair in said.findall(text)}
    assert {name: number for name, number in pairs if index()[name].chapter != number} == {}


@pytest.mark.parametrize("this", sorted(TITLES)[:-1])
def test_a_chapter_ends_with_the_next_one(this):
    own, after = (next((ROOT / "notebooks").glob(f"{number:02}_*.ipynb")) for number in (int(this), int(this) + 1))
    *_, exercises, sources = texts()[f"notebooks/{own.name}"].split("\n## ")  # some have the sources first
    assert re.search(rf"Next: \[[^]]+\]\({after.name}\)\.", exercises + sources), sources[-300:]
