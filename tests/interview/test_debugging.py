"""A debugging round: what the cause and a mend bring, the clock, what is kept; the program as a file; the form."""

import builtins
import dis
from random import Random

import pytest

from parallel_lab.clinic import CASES
from parallel_lab.course import progress
from parallel_lab.interview import debugging
from parallel_lab.interview.clinic_words import of_case
from parallel_lab.interview.debugging import begin, program
from parallel_lab.interview.debugging_form import debugging_round
from parallel_lab.interview.kept import in_turn

CASE = 12


@pytest.fixture(scope="module")
def opened():
    return begin(number=CASE, seed=1).opened


@pytest.fixture
def a_round(opened, monkeypatch, clock):
    monkeypatch.setattr(debugging, "open_case", lambda number: opened)
    return lambda **options: begin(seed=1, **options)


def places(of):
    right = next(place for place, one in enumerate(of.options) if one.name == of.case.cause)
    return right, [place for place in range(len(of.options)) if place != right]


@pytest.mark.parametrize(("wrong", "points", "rating"), [(0, 50, 3), (1, 30, 2), (2, 10, 1), (3, 0, 1)])
def test_the_cause_brings_less_with_each_try(a_round, wrong, points, rating):
    of = a_round()
    right, others = places(of)
    for place in others[:wrong]:
        assert "that would show so" in repr(of.name(place)).lower() and not of.found
    assert "The cause is right" in repr(of.name(right)) and of.found
    of.name(others[0])  # what is said after the right one counts no more
    assert of.points == points
    assert f"{points} of 100 points" in repr(of.finish())
    of.finish()
    (kept,) = progress.read()["reviews"][f"clinic/{CASE}"]["log"]
    assert (kept["rating"], kept["from"]) == (rating, "clinic")
    (report,) = progress.read()["rounds"].values()
    assert (report["kind"], report["case"], report["found"], report["points"]) == ("debugging", CASE, True, points)


def test_a_mended_job_is_judged_on_real_ranks(a_round):
    of = a_round(language="zh")
    text = repr(of.mend(of.case.job, seed=5))
    assert "任务还没有修好" in text and "reads" in text and not of.mended
    assert "任务修好了" in repr(of.mend(of.case.mended, seed=5))
    assert (of.points, of.versions) == (40, 2)
    text = repr(of.finish())
    assert "得 40 分" in text and f"第 {CASE} 号病例" in text and of_case(of.case, "evidence", "zh") in text


def test_what_comes_late_counts_half(a_round, clock):
    of = a_round(minutes=5)
    assert of.clock == "5:00 min left"
    clock.forward(minutes=6)
    of.name(places(of)[0])
    assert of.points == 25 and of.clock == "the time is over" and "in 6:00 of 5 min" in repr(of.finish())
    assert progress.read()["reviews"][f"clinic/{CASE}"]["log"][0]["rating"] == 2


def test_nothing_counts_after_the_end(a_round):
    of = a_round()
    of.finish()
    of.name(places(of)[0])
    assert of.points == 0


def test_cases_that_were_not_met_come_first(clock):
    def chosen(dice):
        return in_turn(CASES, "clinic/{}".format, dice)[0]

    for number in list(CASES)[:-1]:
        progress.record_review(f"clinic/{number}", 3, "clinic")
    assert {chosen(Random(seed)) for seed in range(5)} == {list(CASES)[-1]}
    progress.record_review(f"clinic/{list(CASES)[-1]}", 3, "clinic")
    progress.record_review("clinic/3", 1, "clinic")
    clock.forward(days=1, hours=1)
    assert chosen(Random(1)) == 3


@pytest.mark.parametrize("number", list(CASES))
def test_a_program_stands_alone_and_does_not_name_its_case(number):
    case = CASES[number]
    text = program(case)
    space = {"__name__": "learner"}
    exec(compile(text, "mine.py", "exec"), space)
    assert callable(space[case.job.__name__])
    assert case.job.__module__ not in text and case.cause not in text
    steps = dis.get_instructions(space[case.job.__name__])
    used = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
    assert not used - space.keys() - set(dir(builtins))


def test_the_minutes_and_the_language_are_checked():
    for wrong in (0, -1, float("nan"), 1e9):
        with pytest.raises(ValueError, match="more than 0"):
            debugging_round(wrong)
        with pytest.raises(ValueError, match="more than 0"):
            begin(wrong)
    with pytest.raises(ValueError, match="there is no case 99"):
        debugging_round(number=99)
    with pytest.raises(ValueError, match="choose en for English"):
        debugging_round(language="fr")


def test_the_form_starts_names_mends_and_ends(a_round, by_kind):
    form = debugging_round(language="zh", seed=1).form()
    start = by_kind(form, "Button")[0]
    start.click()
    (radio,), (area,) = by_kind(form, "RadioButtons"), by_kind(form, "Textarea")
    _, name, mend, end = by_kind(form, "Button")
    said = by_kind(form, "HTML")[-1]
    name.click()
    assert "请先选一项" in said.value
    radio.value = radio.options[0][1]
    name.click()
    assert "原因" in said.value
    assert area.value.startswith("from __future__") and "def job" in area.value
    for text, answer in (("x = = 1", "第 1 行"), ("x = 1", "没有函数 job"), (area.value, "任务还没有修好")):
        area.value = text
        mend.click()
        assert answer in said.value
    end.click()
    assert "满分 100 分" in said.value and area.disabled and radio.disabled
    assert not by_kind(form, "Clock")[0].running


def test_the_page_has_the_rules():
    text = repr(debugging_round(10))
    assert "You have 10 minutes" in text and "plab clinic --round" in text
