"""The gaps of the chapters: each is solved by its solution, stands where it says, and tells usual mistakes apart."""

import inspect
import json
import runpy
from collections import Counter
from functools import cache

import pytest
import torch
from grading import ROOT

from parallel_lab.course.checks import check
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.gaps import GAPS
from parallel_lab.grading.gaps.function import FunctionGap
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, plain
from parallel_lab.trace import Trace

FUNCTIONS = [gap for gap in GAPS if isinstance(gap, FunctionGap)]
MISTAKES = [pytest.param(gap, said, id=f"{gap.name}-{i}") for gap in FUNCTIONS for i, said in enumerate(gap.mistakes)]
each_gap = pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.name)


@cache
def solutions(notebook):
    """What the solutions of a chapter define, under a name of no module, so that it travels to ranks by value."""
    return runpy.run_path(str(ROOT / "solutions" / "gaps" / f"{notebook}.py"), run_name="__plab__")


@cache
def cells(notebook):
    """The sources of the chapter's cells, by id, in their order."""
    text = (ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    return {cell["id"]: "".join(cell["source"]) for cell in json.loads(text)["cells"]}


def cell_id(gap):
    return f"gap-{gap.name.replace('_', '-')}"


def stub(gap):
    space = {"__name__": "__plab__"}
    exec(cells(gap.notebook)[f"{cell_id(gap)}-write"], space)
    return space[gap.name]


def called_here(gap, fn):
    """What the graders say of `fn`, called in this process."""
    case = Case(1, defaults=tuple(gap.settings.items()))
    given = gap.given(case, 0, torch.Generator().manual_seed(0))
    outcome = Outcome(case, [given], [plain(gap.drive(fn, case, *given))], [given], Trace(1, ()), expect=gap.expected)
    found = []
    for checks in gap.tests.values():
        for grader in checks[0].graders:
            try:
                grader(outcome)
            except Wrong as wrong:
                found.append(wrong)
    return found


@each_gap
def test_solution_passes_and_shows_why(gap):
    report = check(gap.name, solutions(gap.notebook)[gap.name])
    assert report.passed, repr(report)
    assert gap.solution_note in repr(report) and f"solutions/gaps/{gap.notebook}.py" in repr(report)


@each_gap
def test_stub_is_not_started(gap):
    report = check(gap.name, stub(gap))
    assert not report.verdicts and "not started" in repr(report)
    assert list(inspect.signature(stub(gap)).parameters) == list(
        inspect.signature(solutions(gap.notebook)[gap.name]).parameters
    )


@pytest.mark.parametrize(("gap", "said"), MISTAKES)
def test_mistake_gets_its_advice_and_names_a_call(gap, said):
    found = called_here(gap, gap.mistakes[said])
    assert said in [wrong.advice for wrong in found]
    assert all(wrong.seen.startswith(f"{gap.name}({next(iter(inspect.signature(stub(gap)).parameters))}=")
               for wrong in found)  # fmt: skip


@each_gap
def test_level_minutes_and_the_longer_exercise_stand_at_it(gap):
    text, longer = cells(gap.notebook)[cell_id(gap)], EXERCISES[gap.exercise]
    assert f"**{gap.level.capitalize()} · {gap.minutes} minutes · asked by interviewers ({gap.asked}).**" in text
    assert f"[{longer.title}](../exercises/{longer.notebook}.ipynb)" in text
    assert 2 <= gap.minutes <= 10
    assert not longer.gap


@each_gap
def test_stub_and_check_follow_the_text_and_the_answer_stands_nowhere(gap):
    ids = list(cells(gap.notebook))
    place = ids.index(cell_id(gap))
    assert ids[place + 1 : place + 3] == [f"{cell_id(gap)}-write", f"{cell_id(gap)}-check"]
    assert f'check("{gap.name}", {gap.name})' in cells(gap.notebook)[f"{cell_id(gap)}-check"]
    elsewhere = [text for name, text in cells(gap.notebook).items() if not name.startswith(cell_id(gap))]
    assert not any(f"{gap.name}(" in text for text in elsewhere), "a later cell needs the learner's answer"


def test_each_chapter_has_two_to_four_in_the_order_of_its_text():
    for chapter, count in Counter(gap.chapter for gap in GAPS).items():
        assert 2 <= count <= 4, f"chapter {chapter}"
    for notebook in {gap.notebook for gap in GAPS}:
        written = [
            name for name in cells(notebook) if name.startswith("gap-") and not name.endswith(("write", "check"))
        ]
        assert written == [cell_id(gap) for gap in GAPS if gap.notebook == notebook]


def test_a_crash_names_the_call():
    def ring_chunks(rank, n):
        return [0][n]

    report = check("ring_chunks", ring_chunks)
    assert "It was called with 0, 4." in repr(report) and "IndexError" in repr(report)


def test_numbers_may_be_of_another_type_and_are_right_but_for_rounding():
    answer = solutions("02_collectives_and_topologies")["ring_chunks"]
    assert not called_here(FUNCTIONS[0], lambda rank, n: tuple(0.1 * chunk * 10 for chunk in answer(rank, n)))
    assert called_here(FUNCTIONS[0], lambda rank, n: None)
