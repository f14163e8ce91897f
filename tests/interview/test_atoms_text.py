"""What is written in `interview/atoms`: whole, in both languages, and nothing that the cards do not say."""

import ast
import math
import operator
import re
from collections import Counter
from statistics import mean

import pytest
import yaml

from parallel_lab.course.asked import Number
from parallel_lab.course.claims import VERDICTS as JUDGED
from parallel_lab.course.claims import judged
from parallel_lab.course.questions import FOLDER as CARDS
from parallel_lab.course.questions import index
from parallel_lab.course.terms import read
from parallel_lab.interview.atoms import FOLDER, KINDS, VERDICTS

WRITTEN = KINDS[1:-1]  # the kinds that are not cut from the card
TEXTS = ("ask", "answer", "zh", "answer_zh")
MORE = {"number": {"value"}, "half-truth": {"verdict"}}
OPTIONAL = {"number": {"unit", "tolerance"}}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
}
# What one goes over to a unit by: per cent, the prefixes, seconds.
DECIMAL = (1e3, 1e6, 1e9, 1e12)
UNITS = {"%": (100.0,), "min": (60.0,), "days": (86400.0,), "million": (1e6,), "billion": (1e9,)}
UNITS |= dict.fromkeys(("ms", "kB", "MB", "GB", "TB", "GB/s"), DECIMAL)
# What would give a verdict away before it is asked for.
GIVEN_AWAY = re.compile(r"\b(right|wrong|half[- ]true|half[- ]truth|mistake|verdict)\b|对一半|是错的|错误|说法")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
PER = re.compile(
    r"\b(?:bytes|messages|FLOPs|tokens|sequences|GB|ms|seconds) an? (?:rank|parameter|step|token|GPU|node)\b"
)


def rows() -> dict[str, dict]:
    """All rows of all files; a card that stands twice is refused."""
    found: dict[str, dict] = {}
    for file in sorted(FOLDER.iterdir(), key=str):
        here = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert not found.keys() & here.keys(), file.name
        assert all(name[0] == file.name[0] for name in here), file.name
        found |= here
    return found


ROWS = rows()
EACH = {f"{name}/{kind}": row for name, rows in ROWS.items() for kind, row in rows.items()}


def plain(text: str) -> str:
    """`text` with the operators of Python and without commas between thousands."""
    for old, new in (("`", ""), ("·", "*"), ("×", "*"), ("−", "-"), ("^", "**")):
        text = text.replace(old, new)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def numbers(text: str) -> set[float]:
    """The numbers of a text that are more than a small count: with a decimal point, or of three digits."""
    found = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?", plain(text))
    return {float(one) for one in found if len(one) > 2}


def runs(text: str) -> list[ast.expr]:
    """The calculations of a text, as syntax trees: `(8+4-1) / (8·4)` is one, a number alone is none."""
    found = re.findall(r"[\d(][\d.e()+\-*/% ]*[\d)]", plain(text))
    trees = [tree_of(run) for run in found]
    return [tree for tree in trees if isinstance(tree, ast.BinOp)]


def tree_of(run: str) -> ast.expr | None:
    """The syntax tree of an expression, or None where it is none."""
    try:
        return ast.parse(run.strip(), mode="eval").body
    except SyntaxError:
        return None


def computed(text: str, parts: bool = False) -> list[float]:
    """What each calculation of a text comes to; with `parts` what their parts come to as well, and what goes in."""
    nodes = [node for tree in runs(text) for node in (ast.walk(tree) if parts else (tree,))]
    return [value_of(node) for node in nodes if isinstance(node, ast.BinOp | ast.Constant)]


def value_of(node: ast.expr) -> float:
    """The value of an expression of numbers; nan where it has none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return -value_of(node.operand)
    if not isinstance(node, ast.BinOp):
        return math.nan
    left, right = value_of(node.left), value_of(node.right)
    return math.nan if right == 0 and isinstance(node.op, ast.Div) else OPERATORS[type(node.op)](left, right)


def converted(values: list[float], unit: str) -> list[float]:
    """`values` and what they are in `unit`, if they came out in its base, in another prefix or in seconds."""
    word = next((word for word in UNITS if unit.startswith(word)), "")
    scales = UNITS.get(word, ())
    factors = [1.0, *scales, *(1 / scale for scale in scales)]
    return [value * factor for value in values for factor in factors]


def card_text(name: str) -> str:
    return CARDS.joinpath(f"{name}.md").read_text(encoding="utf-8")


def every(text: str) -> list[float]:
    """All numbers of a text."""
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", plain(text))]


def test_every_card_has_its_four():
    assert {name for name in index() if set(ROWS.get(name, ())) != set(WRITTEN)} == set()
    assert ROWS.keys() == index().keys()


def test_an_atom_is_whole_in_both_languages():
    odd = set()
    for key, row in EACH.items():
        kind = key.partition("/")[2]
        needed = {*TEXTS, *MORE.get(kind, ())}
        keys = needed <= row.keys() <= needed | OPTIONAL.get(kind, set())
        if not keys or not all(isinstance(row[text], str) and row[text].strip() == row[text] != "" for text in TEXTS):
            odd.add((key, "what it has"))
            continue
        if any(CHINESE.search(row[text]) for text in ("ask", "answer")) or not CHINESE.search(row["zh"]):
            odd.add((key, "language"))
        if kind not in ("formula", "number") and not CHINESE.search(row["answer_zh"]):
            odd.add((key, "the Chinese answer"))
        if any(row[text].count("`") % 2 for text in TEXTS):
            odd.add((key, "an open code span"))
    assert odd == set()


def test_an_atom_is_short_enough_to_be_said():
    """At most 30 seconds: 75 words of English, 150 characters of Chinese."""
    limits = {
        "ask": (str.split, 60),
        "answer": (str.split, 75),
        "zh": (CHINESE.findall, 100),
        "answer_zh": (CHINESE.findall, 150),
    }
    long = {
        (key, text): len(cut(row[text]))
        for key, row in EACH.items()
        for text, (cut, most) in limits.items()
        if len(cut(row[text])) > most
    }
    assert long == {}


def test_terms_are_those_of_the_glossary():
    refused = {word: row["zh"] for row in read("glossary") for word in row["not"]}
    found = {}
    for key, row in EACH.items():
        text = "\n".join(row[one] for one in TEXTS)
        if words := [f"{word}: {instead}" for word, instead in refused.items() if word in text] + PER.findall(text):
            found[key] = words
    assert found == {}


def unfounded(key: str, ask: str, answer: str) -> list[float]:
    """Numbers of the answer that stand neither in the card nor in the question nor in a calculation of the answer."""
    row = EACH[key]
    unit = str(row.get("unit", ""))
    near = [*numbers(card_text(key.partition("/")[0])), *numbers(row[ask]), row.get("value", 0)]
    near += [*converted(computed(row[answer], parts=True), unit)]
    if answer == "answer_zh":
        near += [10 * one for one in near]  # billions are counted in units of 10^8
    return [one for one in numbers(row[answer]) if not any(math.isclose(one, other, rel_tol=0.006) for other in near)]


def test_figures_are_the_cards_or_are_computed():
    pairs = (("ask", "answer"), ("zh", "answer_zh"))
    assert {(key, one[1]): odd for key in EACH for one in pairs if (odd := unfounded(key, *one))} == {}


def test_a_number_follows_from_its_answer():
    """Each answer has a calculation that comes to the value, or the value is a figure of the card."""
    odd = []
    for name, rows in ROWS.items():
        row = rows["number"]
        value, unit = row["value"], str(row.get("unit", ""))
        for answer in ("answer", "answer_zh"):
            said = converted(computed(row[answer]), unit) or numbers(card_text(name))
            if not any(math.isclose(one, value, rel_tol=0.01) for one in said):
                odd.append((name, answer, "no calculation"))
            if not any(math.isclose(one, value, rel_tol=row.get("tolerance", 0.02)) for one in every(row[answer])):
                odd.append((name, answer, "no result"))
    assert odd == []


def test_a_number_is_taken_when_it_is_typed():
    for name, rows in ROWS.items():
        row = rows["number"]
        value, unit, tolerance = row["value"], str(row.get("unit", "")), row.get("tolerance", 0.02)
        assert not isinstance(value, bool) and 0 <= tolerance <= 0.1, name
        asked = Number(row["ask"], float(value), unit, tolerance)
        assert asked.feedback(str(value))[0] and asked.feedback(f"{value} {unit}")[0], name
        assert not asked.feedback(str(value * (1 + max(2 * tolerance, 1e-3))))[0], name


def test_no_verdict_can_be_guessed():
    """At least a quarter of the sentences are right, a third half right, a fifth wrong; none names its verdict."""
    truths = {name: rows["half-truth"] for name, rows in ROWS.items()}
    counts = Counter(row["verdict"] for row in truths.values())
    assert set(counts) == set(VERDICTS)
    for verdict, share in (("right", 1 / 4), ("half", 1 / 3), ("wrong", 1 / 5)):
        assert counts[verdict] >= share * len(truths), counts
    given = {(name, ask) for name, row in truths.items() for ask in ("ask", "zh") if GIVEN_AWAY.search(row[ask])}
    assert given == set()


def test_the_right_sentences_are_no_longer_than_the_others():
    """Conditions make a sentence right; they are put into all of them, so that length does not tell."""
    words = {verdict: [] for verdict in VERDICTS}
    for rows in ROWS.values():
        row = rows["half-truth"]
        words[row["verdict"]].append(len(row["ask"].split()))
    means = [mean(counts) for counts in words.values()]
    assert max(means) < 1.6 * min(means)


def test_a_sentence_that_the_course_judges_has_that_verdict():
    verdicts: dict[str, str] = dict(zip(JUDGED, VERDICTS, strict=True))
    for one in judged():
        row = ROWS[one.question.id]["half-truth"]
        if row["ask"] == one.question.test:
            assert row["verdict"] == verdicts[one.verdict], one.question.id


def test_a_calculation_is_found_and_valued():
    assert computed("`(8+4−1) / (8·4)` = 34.4 %") == [11 / 32] and computed("m is 8, p is 4") == []
    assert any(one == pytest.approx(6.48) for one in converted(computed("405e9 · 16 bytes"), "TB"))
    assert numbers("about 104,500 of 8 at 0.5 %") == {104500.0, 0.5}
    assert computed("`45 // 8 % 4` = 1; 2**-8, (64) ** 0.5") == [1, 2**-8, 8]


def test_a_figure_out_of_nowhere_and_a_wrong_value_are_found(monkeypatch):
    row = {"ask": "p = 4?", "answer": "`1 / 4` = 25 %, and 777 GB", "value": 26, "unit": "%"}
    monkeypatch.setitem(EACH, "E5/number", row)
    assert unfounded("E5/number", "ask", "answer") == [777.0]
    monkeypatch.setitem(ROWS, "E5", {"number": {**row, "answer_zh": row["answer"]}})
    with pytest.raises(AssertionError, match="no calculation"):
        test_a_number_follows_from_its_answer()
