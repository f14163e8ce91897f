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


def test_every_chapter_has_three_to_five_and_there_are_eighty():
    chapters = list(listed().values())
    assert {chapter: chapters.count(chapter) for chapter in TITLES if not 3 <= chapters.count(chapter) <= 5} == {}
    assert len(chapters) >= 80


def draw(dice: Random) -> Drawn:
    n = dice.randint(2, 9)
    wrong = ((n**2, "You took it times itself."), (3 * n, "You took it three times."))
    return Drawn(f"What is twice {n}?", 2 * n, ("Take it twice.", f"2 · {n} = {2 * n} MB."), "MB", wrong=wrong)


TWICE = Problem("twice", "02", "Twice a number", draw)


def test_numbers_are_fresh_at_every_call_and_kept_within_a_problem():
    one = practice.Drill(TWICE)
    assert len({one.draw().question for _ in range(50)}) > 2
    assert practice.Drill(TWICE, Random(3)).draw() == practice.Drill(TWICE, Random(3)).draw()


def test_a_right_answer_is_kept_and_a_slip_is_hinted_at():
    one = practice.Drill(TWICE, Random(1)).attempt()
    right, said = one.answer(f"{one.drawn.answer / 1000} MB")
    assert not right and "1000" in said and progress.read()["drills"] == {}
    assert one.answer("much")[0] is False and one.failed == 1, "what is no number is no wrong answer"
    assert one.answer(f"{1000 * one.drawn.answer} kB")[0] and one.solved
    one.answer(str(one.drawn.answer))
    assert progress.read()["drills"]["twice"]["right"] == 1, "an answer counts once"


def test_after_the_solution_an_answer_does_not_count():
    one = practice.Drill(TWICE, Random(1)).attempt()
    assert "Take it twice" in one.give_up()[0].text
    assert one.answer(str(one.drawn.answer))[0] and not one.solved and progress.read()["drills"] == {}


@pytest.mark.parametrize(("typed", "said"), [("36", "times itself"), ("17.97", "three times"), ("13", "Too large.")])
def test_a_known_wrong_formula_is_named(typed, said):
    six = Drawn("What is twice 6?", 12, ("", "12"), wrong=((36.0, "You took it times itself."), (18, "three times")))
    right, answer = practice.asked(six).feedback(typed)
    assert not right and said in answer


def test_a_share_in_place_of_per_cent_is_named():
    half = Drawn("Which share?", 50, ("", "50 %"), "%", wrong=((25, "You took the half of it."),))
    assert practice.asked(half).feedback("0.5") == (
        False,
        "You typed a share of 1. The answer is asked for in per cent.",
    )
    assert practice.asked(half).feedback("25 %")[1] == "You took the half of it."


def test_a_wrong_formula_that_comes_to_the_answer_is_not_named():
    two = Drawn("What is twice 2?", 4, ("", "4"), wrong=((4, "times itself"), (4.05, "near"), (6, "one"), (6.1, "two")))
    assert two.wrong == ((6, "one"),)


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


def test_a_drill_of_a_chapter_is_one_never_solved_then_the_one_solved_longest_ago(monkeypatch):
    names = practice.names_of("09")
    assert practice.names_of(9) == names and {listed()[name] for name in names} == {"09"}
    for day, name in enumerate(names[1:], 1):
        monkeypatch.setattr(progress, "_today", lambda day=day: f"2026-01-{day:02d}")
        progress.record_drill(name)
    assert {drill(chapter="09").problem.name for _ in range(5)} == {names[0]}
    monkeypatch.setattr(progress, "_today", lambda: "2026-02-01")
    progress.record_drill(names[0])
    assert {drill(chapter=9).problem.name for _ in range(5)} == {names[1]}
    assert drill("pipeline-bubble", chapter="09").problem.name == "pipeline-bubble"


def test_a_chapter_without_drills_and_a_drill_of_another_chapter_say_so():
    with pytest.raises(UnknownName, match="no chapter with drills '77'"):
        drill(chapter="77")
    with pytest.raises(ValueError, match="ring-bytes is one of chapter 02; chapter 09 has pipeline-bubble"):
        drill("ring-bytes", chapter="09")


def test_the_page_has_a_question_and_no_answer():
    text = repr(practice.Drill(TWICE))
    assert "What is twice" in text and "Take it" not in text and "plab drill twice" in text
    assert repr(practice.Drill(TWICE)) == text


def test_an_unknown_drill_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no drill 'nothing'"):
        drill("nothing")


def test_the_list_that_loads_nothing_is_the_list_of_what_is_loaded():
    assert listed() == {name: one.chapter for name, one in problems().items()}
