"""Level, minutes and who asks stand at each exercise; one of over 30 minutes is cut into steps, each with its check."""

import json
import re
from collections import Counter

import pytest
from grading import ROOT

from parallel_lab.course import checks, progress
from parallel_lab.course.checks import check, hint
from parallel_lab.course.questions import index
from parallel_lab.grading.exercises import EXERCISES

LONG = [exercise for exercise in EXERCISES.values() if exercise.minutes >= 30]
IN_STEPS = [exercise for exercise in EXERCISES.values() if exercise.steps and exercise.name != "clinic"]
NOTEBOOKS = [exercise for exercise in EXERCISES.values() if not exercise.gap]


def cells(exercise):
    notebook = json.loads((ROOT / f"exercises/{exercise.notebook}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"]]


@pytest.mark.parametrize("exercise", NOTEBOOKS, ids=lambda exercise: exercise.name)
def test_notebook_shows_level_minutes_and_who_asks(exercise):
    title, *rest = cells(exercise)
    (row,) = re.findall(rf"^\|.*`{exercise.name}`.*$", title, flags=re.MULTILINE)
    assert f"| {exercise.level} | {exercise.minutes}" in row and f"| {exercise.asked} |" in row
    said = rf"\*{exercise.level.capitalize()}, {exercise.minutes} minutes.* Asked by interviewers: "
    assert any(re.search(said + re.escape(exercise.asked), cell) for cell in rest)


@pytest.mark.parametrize("exercise", NOTEBOOKS, ids=lambda exercise: exercise.name)
def test_who_asks_is_what_the_index_of_questions_says(exercise):
    kinds = {index()[name].kind for name in re.findall(r"\b[A-E]C?\d+\b", exercise.asked)}
    if exercise.asked.startswith("as a coding problem"):
        assert "code" in kinds
    elif exercise.asked.startswith("as a question"):
        assert kinds and "code" not in kinds
    else:
        assert exercise.asked.startswith("in no list")


@pytest.mark.parametrize("exercise", LONG, ids=lambda exercise: exercise.name)
def test_long_exercise_has_steps_of_5_to_20_minutes_and_each_has_its_cells(exercise):
    assert exercise.steps and all(5 <= step.minutes <= 20 for step in exercise.steps)
    assert exercise.steps[-1].tests == len(exercise.tests)
    texts, name = cells(exercise), exercise.name
    for number, step in enumerate(exercise.steps, 1):
        head = f"### Step {number} of {len(exercise.steps)} · {step.title[0].upper()}{step.title[1:]}"
        place = next(place for place, text in enumerate(texts) if text.startswith(head))
        assert "**Graded.**" in texts[place] and f"*{step.minutes} minutes.*" in texts[place]
        call = f'check("{name}", {name}, step={number})'
        assert next(text for text in texts[place:] if text.startswith("check(")) == call


@pytest.mark.parametrize("exercise", IN_STEPS, ids=lambda exercise: exercise.name)
def test_hints_come_in_the_order_of_the_steps_and_begin_with_the_first(exercise):
    of = exercise.hint_steps
    assert len(of) == len(exercise.hints) and None not in of, "each hint names its step"
    assert of == sorted(of) and of[0] == 1 and of[-1] <= len(exercise.steps)


def test_hints_of_the_clinic_are_for_every_step():
    assert not any(EXERCISES["clinic"].hint_steps) and len(EXERCISES["clinic"].hint_steps) == 4


def test_hint_says_which_step_it_is_for():
    said = repr(hint("ring_all_reduce"))
    assert said.startswith("Hint 1 of 5, step 1: ") and "What if all ranks send before any receives?" in said


@pytest.fixture
def nothing_shown(monkeypatch):
    monkeypatch.setattr(checks, "_SHOWN", Counter())
    monkeypatch.setattr(checks, "_SKIPPED", Counter())


def hints(count):
    return [repr(hint("ring_all_reduce")).partition(": ")[0] for _ in range(count)]


def test_hints_begin_at_the_first_step_that_has_not_passed(nothing_shown):
    progress.record_exercise("ring_all_reduce", 0.4, steps=1)
    assert hints(1) == ["Hint 2 of 5, step 2"]
    assert progress.read()["exercises"]["ring_all_reduce"]["hints"] == 1, "one that is left out does not count"
    progress.record_exercise("ring_all_reduce", 0.8, failed=True, steps=2)
    progress.record_exercise("ring_all_reduce", 0.2, failed=True)  # a worse answer later
    assert hints(2) == ["Hint 5 of 5, step 3"] * 2
    assert progress.read()["exercises"]["ring_all_reduce"]["hints"] == 3


def test_hints_of_a_solved_exercise_and_of_one_without_steps_are_all_shown(nothing_shown):
    progress.record_exercise("ring_all_reduce", 1.0, steps=3)
    assert hints(6) == [
        f"Hint {n} of 5, step {step}" for n, step in zip((1, 2, 3, 4, 5, 1), (1, 2, 2, 2, 3, 1), strict=True)
    ]
    progress.record_exercise("ring_shift", 0.5, failed=True)
    assert repr(hint("ring_shift")).startswith("Hint 1 of 3: ")


def test_hints_seen_before_a_step_passed_are_not_shown_again(nothing_shown):
    assert hints(3)[-1] == "Hint 3 of 5, step 2"
    progress.record_exercise("ring_all_reduce", 0.4, steps=1)
    assert hints(3) == ["Hint 4 of 5, step 2", "Hint 5 of 5, step 3", "Hint 2 of 5, step 2"]


@pytest.mark.parametrize(("name", "step"), [("bucketed_ddp", 4), ("bucketed_ddp", -1), ("ring_shift", 1)])
def test_step_that_does_not_exist_is_said(name, step):
    with pytest.raises(ValueError, match=f"{name} has .* steps.*: there is no step {step}"):
        check(name, len, step=step)
