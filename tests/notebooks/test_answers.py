"""Nothing gives an answer away: none stands in a notebook, and each chapter asks before it shows."""

import ast
import json
import re
from pathlib import Path

import pytest

from parallel_lab.course.asked import Choice
from parallel_lab.course.quizzes import sheets

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("*.ipynb"))}
CALL = re.compile(r'\bpredict\("([\w-]+)"(,?)')


@pytest.fixture(params=NOTEBOOKS)
def number(request) -> str:
    return request.param


@pytest.fixture
def cells(number) -> list[dict]:
    return json.loads(NOTEBOOKS[number].read_text(encoding="utf-8"))["cells"]


def everything(cell: dict) -> str:
    """What a cell says and shows, as one line of words."""
    shown = [data for out in cell.get("outputs", []) for data in [out.get("text", ""), *out.get("data", {}).values()]]
    texts = ["".join(part) for part in [cell["source"], *shown] if isinstance(part, str | list)]
    return " ".join(" ".join(texts).replace("&#x27;", "'").replace("&gt;", ">").split())


def answers(number: str) -> list[str]:
    """The texts that answer the self-check: reasons, what options tell, numbers with their unit."""
    found = []
    for one in sheets()[number].quiz:
        found.append(one.why)
        if isinstance(one, Choice):
            found += filter(None, one.notes)
        elif one.unit:
            found.append(one.words(one.answer))
    return [" ".join(text.split()) for text in found]


def test_no_answer_of_the_self_check_stands_in_the_chapter(number, cells):
    text = " ".join(map(everything, cells))
    assert [answer for answer in answers(number) if re.search(rf"(?<![\d.,]){re.escape(answer)}", text)] == []


def test_the_self_check_is_one_call(number, cells):
    (source,) = ["".join(cell["source"]) for cell in cells if cell["id"] == "quiz"]
    assert source == f'quiz("{number}")'


def calls(cells: list[dict]) -> list[tuple[int, str, bool]]:
    """Place of the cell, name, and whether it compares, for each call of `predict`."""
    code = [(place, "".join(c["source"])) for place, c in enumerate(cells) if c["cell_type"] == "code"]
    return [(place, name, bool(comma)) for place, source in code for name, comma in CALL.findall(source)]


def test_each_prediction_is_compared_later_in_the_same_chapter(number, cells):
    asked = {name: place for place, name, compares in calls(cells) if not compares}
    compared = {name: place for place, name, compares in calls(cells) if compares}
    assert set(asked) == set(compared) == set(sheets()[number].predict)
    assert len(calls(cells)) == 2 * len(asked) >= 6
    assert all(asked[name] < compared[name] for name in asked)


def test_what_gives_a_prediction_away_is_folded(number, cells):
    compared = {name: place for place, name, compares in calls(cells) if compares}
    for place, name, compares in calls(cells):
        if compares:
            continue
        assert "".join(cells[place]["source"]) == f'predict("{name}")', "a cell of its own"
        between = cells[place + 1 : compared[name] + 1]
        assert [c["id"] for c in between if c["cell_type"] != "code"] == [], "words that may tell the answer"
        for cell in between:
            folded = cell["metadata"].get("jupyter", {}).get("outputs_hidden", False)
            assert folded == bool(cell["outputs"]), f"{cell['id']} is {'folded, and empty' if folded else 'open'}"


SHOWN = re.compile(r"the cell shows (.+?): ")
TELLING_DIGITS, TELLING_LETTERS = 3, 12  # fewer stand in a chapter by chance


def told(words: str) -> str:
    """The part of an answer, as a comparison says it, by which a text would tell it; empty where it has none."""
    if option := re.fullmatch(r"“(.+)”", words):
        return option[1] if len(option[1]) >= TELLING_LETTERS else ""
    number = re.match(r"-?[\d.,]+", words)
    return number[0] if number and len(re.sub(r"\D", "", number[0])) >= TELLING_DIGITS else ""


def test_no_text_tells_what_a_prediction_asks(number, cells):
    """Not before the run has shown it, and not right below it, where it would be on the same screen."""
    sources = ["".join(cell["source"]) for cell in cells]
    words = [place for place, cell in enumerate(cells) if cell["cell_type"] == "markdown"]
    found = []
    for place, name, compares in calls(cells):
        shown = SHOWN.search(everything(cells[place]))
        if compares and (answer := told(shown[1])):
            pattern = re.compile(rf"(?<![\w.,-]){re.escape(answer)}(?!\w|[.,]\d)")
            below = next(one for one in words if one > place)
            found += [(name, cells[n]["id"]) for n in words if n <= below and pattern.search(sources[n])]
    assert found == []


def test_what_depends_on_the_learner_is_not_compared(cells):
    for place, name, _ in calls(cells):
        assert "nbval-ignore-output" in cells[place]["metadata"]["tags"], name


def test_a_comparison_takes_what_was_measured(cells):
    """Its second argument is computed from the run's own variables and is no constant."""
    for place, name, compares in calls(cells):
        if compares:
            tree = ast.parse("".join(cells[place]["source"]))
            (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "predict"]
            assert any(isinstance(n, ast.Name) for n in ast.walk(call.args[1])), name
