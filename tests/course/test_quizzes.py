"""Self-checks: their files are whole, feedback for each option and slip gives nothing away, a form, a readable page."""

import re
from collections import Counter
from pathlib import Path

import pytest

from parallel_lab import quiz
from parallel_lab.course import progress
from parallel_lab.course.asked import Choice, Number
from parallel_lab.course.quizzes import sheets
from parallel_lab.course.typed import UnknownName, parse_number

COLORS = Choice("Which?", ["red", "blue"], 1, why="It is.", notes=["Red stops.", ""])
BYTES = Number("How many?", 1.8, unit="MB", why="2 (n-1)/n S.")
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHOICES = [one for sheet in sheets().values() for one in sheet.quiz if isinstance(one, Choice)]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def test_every_file_is_whole():
    written = sorted(path.name[:2] for path in NOTEBOOKS.glob("*.ipynb"))
    assert list(sheets()) == written
    for sheet in sheets().values():
        assert len(sheet.quiz) >= 2
        for one in sheet.quiz:
            assert one.why
            given = "abcdefghij"[one.right] if isinstance(one, Choice) else str(one.answer)
            assert one.feedback(given)[0], one.question


@pytest.mark.parametrize("one", CHOICES, ids=lambda one: one.question[:30])
def test_every_choice_is_whole(one):
    assert 0 <= one.right < len(one.options) == len(set(one.options)) <= 10
    assert len(one.notes) in (0, len(one.options))


NUMBERS = [
    pytest.param(chapter, place, id=f"{chapter}-{place + 1}")
    for chapter, sheet in sheets().items()
    for place, one in enumerate(sheet.quiz)
    if isinstance(one, Number) and chapter <= "06"
]


@pytest.mark.parametrize(("chapter", "place"), NUMBERS)
def test_a_number_of_the_first_chapters_knows_wrong_formulas_and_none_is_taken_for_the_answer(chapter, place):
    one, other = (sheets(language)[chapter].quiz[place] for language in ("en", "zh"))
    assert [value for value, _ in one.wrong] == [value for value, _ in other.wrong] != []
    for asked in (one, other):
        assert len({said for _, said in asked.wrong}) == len(asked.wrong)
        for value, said in asked.wrong:
            assert asked.feedback(f"{value:.10g}") == (False, said), "its own sentence, and not that of another"
            assert asked.feedback(f"{value:.3g}")[0] is False, "nor as one rounds it"
            assert not re.search(rf"(?<![\d.]){one.answer:g}(?![\d.]*\d)", said), "it does not tell the answer"


def test_a_wrong_formula_is_named_where_it_is_typed():
    assert quiz("00").answer(0, "800 MB")[1].startswith("You let a rank send 2S.")
    assert quiz("00", "zh").answer(0, "800")[1].startswith("你让一个 rank 发送了 2S")
    assert quiz("03").answer(0, "2.45 GB")[1] == "You counted 4 bytes a number. A bfloat16 has 2."


def test_right_options_stand_in_no_place_more_than_half_of_the_time():
    places = Counter(one.right for one in CHOICES)
    assert max(places.values()) <= len(CHOICES) / 2


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1500000", "", 1.5e6),
        ("1.5e6", "", 1.5e6),
        (" 1,500,000 ", "", 1.5e6),
        ("1 500 000", "", 1.5e6),
        ("1_500_000", "", 1.5e6),
        ("1.5 MB", "B", 1.5e6),
        ("1.5MB", "MB", 1.5),
        ("1 MiB", "KiB", 1024),
        ("1 MiB", "B", 2**20),
        ("-3", "", -3),
        ("−3", "", -3),
        ("2/3", "", 2 / 3),
        ("75 %", "", 0.75),
        ("42,", "", 42),
        ("700 MB.", "MB", 700),
        ("1,500.", "", 1500),
        ("1.5e3 MB;", "GB", 1.5),
        ("42，", "", 42),
    ],
)
def test_numbers_as_people_type_them(text, unit, value):
    assert parse_number(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "many", "1.5.2", "1,5", "2/0", "1 s"])
def test_what_is_no_number_is_said(text):
    right, said = BYTES.feedback(text)
    assert not right
    assert "not a number" in said or "the unit asked for is MB" in said


@pytest.mark.parametrize(("text", "point"), [("1,5", "1.5"), ("-1,85 MB", "-1.85 MB"), ("1,5e3", "1.5e3")])
def test_a_decimal_comma_is_told_how_to_write_it(text, point):
    assert BYTES.feedback(text) == (False, f"'{text}' is not a number here: the decimal sign is a point, {point}.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3.6", "Too large by a factor of 2."),
        ("14.4", "Too large by a factor of 8 (bits for bytes?)."),
        ("1800", "Too large by a factor of 1000 (a unit prefix?)."),
        ("1.757", "Close: the difference is that between 1000 and 1024 (kB or KiB)."),
        ("-1.8", "Look at the sign."),
        ("0", "It is not zero."),
        ("0.6", "Too small."),
        ("2.05", "Too large."),
        ("10", "Too large."),
    ],
)
def test_only_telling_factors_are_said(text, said):
    assert BYTES.feedback(text) == (False, said)


def test_right_within_the_tolerance_only():
    assert BYTES.feedback("1.817")[0]
    assert not BYTES.feedback("1.83")[0]
    assert BYTES.feedback("1.8 MB") == (True, "2 (n-1)/n S.")


def test_each_option_has_its_feedback():
    assert COLORS.feedback("a") == (False, "Not a). Red stops.")
    assert COLORS.feedback("b") == COLORS.feedback("B)") == (True, "It is.")
    for nothing in (None, "", "c", "ab"):
        assert COLORS.feedback(nothing) == (False, "Pick an option first.")


def test_a_chapter_is_named_by_its_number_or_its_file():
    assert quiz("03") == quiz("03_data_parallel")
    assert quiz("03").name == "03_data_parallel"
    with pytest.raises(UnknownName, match="there is no self-check '99'"):
        quiz("99")


def test_the_page_asks_everything_and_answers_nothing():
    for number in sheets():
        shown = quiz(number)
        bundle = shown._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        for text in (bundle["text/plain"], bundle["text/html"].replace("&#x27;", "'")):
            assert all(one.why not in text for one in shown.questions)
            assert f"plab quiz {number}" in text
        assert all(one.question in bundle["text/plain"] for one in shown.questions)
        assert "<details" not in bundle["text/html"]


def test_enter_checks_a_number(by_kind):
    form = quiz("00").form()
    (text,), said = by_kind(form, "Text"), by_kind(form, "HTML")[2]
    text.value = "5"
    assert said.value == ""
    text._handle_custom_msg({"event": "submit"}, [])  # what the browser sends
    assert "Not yet" in said.value


def test_form_gives_feedback_and_keeps_progress(by_kind):
    shown = quiz("00")
    form = shown.form()
    assert not by_kind(form, "Output")
    (text,), radios, buttons = by_kind(form, "Text"), by_kind(form, "RadioButtons"), by_kind(form, "Button")
    assert all(one.tooltip for one in (text, *radios, *buttons))
    right, wrong = "abc"[shown.questions[1].right], "abc"[shown.questions[1].right - 1]
    radios[0].value = wrong
    buttons[1].click()
    said = by_kind(form, "HTML")[4]
    assert f"✗ Not yet</p>\n<p>Not {wrong})." in said.value and "plab-wrong" in said.value and "plab-bad" in said.value
    assert progress.read()["quizzes"]["00_start_here"]["best"] == 0
    radios[0].value = right
    buttons[1].click()
    assert "✓ Right" in said.value and "plab-right" in said.value and 'role="status"' in said.value
    assert progress.read()["quizzes"]["00_start_here"]["best"] == pytest.approx(1 / 3)
    text.value, radios[1].value = str(shown.questions[0].answer), "abc"[shown.questions[2].right]
    buttons[0].click()
    buttons[2].click()
    assert progress.read()["quizzes"]["00_start_here"]["best"] == 1
