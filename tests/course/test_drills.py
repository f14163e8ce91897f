"""Drills: each draws sound problems, a slip is hinted at, the derivation ends in the answer."""

import math
import re
from random import Random

import pytest

from parallel_lab import drill
from parallel_lab.course import practice, progress
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.drills import listed, problems
from parallel_lab.course.drills.engine import Drawn, Problem
from parallel_lab.course.typed import UnknownName

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize("name", listed())
def test_a_drill_is_sound_with_whatever_numbers(name):
    one = problems()[name]
    assert one.chapter in TITLES and one.title and not one.title.endswith(".")
    questions = set()
    for seed in range(50):
        drawn = one.draw(Random(seed))
        questions.add(drawn.question)
        assert math.isfinite(drawn.answer) and drawn.answer != 0
        assert len(drawn.steps) >= 2 and 0 < drawn.tolerance <= 0.1
        found = [float(number.replace(",", "")) for number in NUMBER.findall(drawn.steps[-1])]
        assert any(math.isclose(value, drawn.answer, rel_tol=drawn.tolerance) for value in found), drawn.steps[-1]
        assert practice.asked(drawn).feedback(f"{drawn.answer:.6g}")[0]
        assert not practice.asked(drawn).feedback(f"{2 * drawn.answer:.6g}")[0]
    assert len(questions) >= 10, "the numbers are hardly fresh"


def test_every_chapter_with_drills_has_two_to_four():
    chapters = list(listed().values())
    assert {chapter: chapters.count(chapter) for chapter in chapters if not 2 <= chapters.count(chapter) <= 5} == {}


def draw(dice: Random) -> Drawn:
    n = dice.randint(2, 9)
    return Drawn(f"What is twice {n}?", 2 * n, ("Take it twice.", f"2 · {n} = {2 * n} MB."), "MB")


TWICE = Problem("twice", "02", "Twice a number", draw)


def test_numbers_are_fresh_at_every_call_and_kept_within_a_problem():
    one = practice.Drill(TWICE)
    assert len({one.draw().question for _ in range(50)}) > 2
    assert practice.Drill(TWICE, Random(3)).draw() == practice.Drill(TWICE, Random(3)).draw()


def test_a_right_answer_is_kept_and_a_slip_is_hinted_at():
    one = practice.Drill(TWICE, Random(1))
    drawn = one.draw()
    right, said = one.answer(drawn, f"{drawn.answer / 1000} MB")
    assert not right and "1000" in said and progress.read()["drills"] == {}
    assert one.answer(drawn, f"{1000 * drawn.answer} kB")[0]
    assert progress.read()["drills"]["twice"]["right"] == 1


def test_the_form_asks_checks_shows_and_draws_again():
    form = practice.Drill(TWICE, Random(1)).form()
    place = form.children[1]
    row, buttons, below = place.children
    assert "What is twice" in row.children[0].value
    row.children[2].click()
    assert "not a number" in row.children[3].value
    buttons.children[0].click()
    assert "Take it twice" in below.value
    buttons.children[1].click()
    assert place.children[0] is not row


def test_the_page_has_a_question_and_no_answer():
    text = repr(practice.Drill(TWICE))
    assert "What is twice" in text and "Take it" not in text and "plab drill twice" in text
    assert repr(practice.Drill(TWICE)) == text


def test_an_unknown_drill_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no drill 'nothing'"):
        drill("nothing")


def test_the_list_that_loads_nothing_is_the_list_of_what_is_loaded():
    assert listed() == {name: one.chapter for name, one in problems().items()}
