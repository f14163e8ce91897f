"""Self-checks: feedback per option and per kind of slip, a form that needs no Output widget, a readable fallback."""

import ipywidgets as widgets
import pytest

from parallel_lab.course import progress
from parallel_lab.course.quizzes import choice, number, quiz
from parallel_lab.course.typed import parse_number


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


COLORS = choice("Which?", ["red", "blue"], "blue", why="It is.", notes=["Red stops.", ""])
BYTES = number("How many?", 1.8, unit="MB", why="2 (n-1)/n S.")


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
    ],
)
def test_numbers_as_people_type_them(text, unit, value):
    assert parse_number(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "many", "1.5.2", "1,5", "2/0", "1 s"])
def test_what_is_no_number_is_said(text):
    right, said = BYTES.feedback(text)
    assert not right
    assert "not a number" in said or "the unit asked for is MB" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3.6", "too large by a factor of 2"),
        ("0.6", "too small by a factor of 3"),
        ("1800", "too large by a factor of 1000"),
        ("1.757", "difference is that between 1000 and 1024"),
        ("-1.8", "look at the sign"),
        ("10", "too large by a factor of about 5.56"),
        ("0", "not zero"),
    ],
)
def test_wrong_number_is_told_how_far_off(text, said):
    right, feedback = BYTES.feedback(text)
    assert not right
    assert said in feedback


def test_right_within_the_tolerance_only():
    assert BYTES.feedback("1.817")[0]
    assert not BYTES.feedback("1.83")[0]
    assert "2 (n-1)/n S." in BYTES.feedback("1.8 MB")[1]


def test_each_option_has_its_feedback():
    assert COLORS.feedback(0) == (False, "Not a). Red stops.")
    assert COLORS.feedback(1) == (True, "Right. It is.")
    assert COLORS.feedback(None) == (False, "Pick an option first.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("q", ["one"], 0, "w"),
        ("q", ["a", "b"], 2, "w"),
        ("q", ["a", "b"], "c", "w"),
        ("q", ["a", "b"], 0, "w", ["one"]),
    ],
)
def test_choice_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError):
        choice(*arguments)


def test_fallback_reads_without_widgets():
    bundle = quiz("02-ring", COLORS, BYTES)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "a) red" in bundle["text/plain"] and "(in MB)" in bundle["text/plain"]
    assert "<details" in bundle["text/html"] and "1.8 MB" in bundle["text/html"]
    assert "1.8" not in bundle["text/plain"]  # nbval shows it: the answer stays folded


def widgets_in(box):
    for child in getattr(box, "children", ()):
        yield child
        yield from widgets_in(child)


def test_form_gives_feedback_and_keeps_progress():
    form = quiz("02-ring", COLORS, BYTES).form()
    inside = list(widgets_in(form))
    assert not any(isinstance(one, widgets.Output) for one in inside)
    radio = next(one for one in inside if isinstance(one, widgets.RadioButtons))
    text = next(one for one in inside if isinstance(one, widgets.Text))
    buttons = [one for one in inside if isinstance(one, widgets.Button)]
    assert all(one.tooltip for one in (radio, text, *buttons))
    radio.value = 0
    buttons[0].click()
    assert any("Red stops." in getattr(one, "value", "") for one in inside if isinstance(one, widgets.HTML))
    assert progress.read()["quizzes"]["02-ring"]["best"] == 0
    radio.value, text.value = 1, "1.8"
    buttons[0].click()
    assert progress.read()["quizzes"]["02-ring"]["best"] == 0.5
    buttons[1].click()
    assert progress.read()["quizzes"]["02-ring"]["best"] == 1


def test_quiz_without_questions_is_refused():
    with pytest.raises(ValueError, match="no questions"):
        quiz("empty")
