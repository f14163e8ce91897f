"""Turns that a machine judges: a number with fresh digits, the cause of a broken job, a function, a layout.

Nothing is judged by the words of the answer. The number is compared within a tolerance, the cause with the hidden one
of a case of the clinic that runs here, the function by the checks of its exercise, the layout by the planner.
"""

import inspect
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from parallel_lab.clinic import CAUSES, Cause, open_case
from parallel_lab.clinic.job import Case
from parallel_lab.clinic.ward import Opened
from parallel_lab.course import page, practice
from parallel_lab.course.asked import Choice
from parallel_lab.course.checks import grade
from parallel_lab.course.drills.chinese import spoken_in
from parallel_lab.course.drills.engine import Problem
from parallel_lab.course.spoken import title_in
from parallel_lab.course.tasks import Task
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.interview import rounds
from parallel_lab.interview.board import block, picture
from parallel_lab.interview.clinic_words import of_case, of_cause
from parallel_lab.interview.coding import function_from, imported, said_in_chinese, stub
from parallel_lab.interview.rounds import Judged, Turn, plain
from parallel_lab.interview.words import in_unit, lang, say
from parallel_lab.view import draw

OPTIONS = 4  # causes to choose from


def number(problem: Problem, language: str, dice: Random) -> Turn:
    """A drill with fresh numbers; a known wrong formula is named."""
    drawn = spoken_in(language, problem.name, problem.draw(dice))
    asked = practice.asked(drawn)
    words = f"{say('rounds.number', language, question=drawn.question)}{in_unit(drawn.unit, language)}"
    inside = tuple(practice.solution(drawn, language))
    key = f"drill/{problem.name}"
    about = {"rubric": inside, "judge": partial(rounds.number, asked, language)}
    return Turn("number", "number", key, problem.chapter, words, plain(drawn.question), **about)


def log(case: Case, language: str, dice: Random) -> Turn:
    """A case of the clinic, run on real ranks: its program and chart, and four causes to choose from."""
    opened = open_case(case.number)
    causes = near_causes(case, dice)
    names = tuple(cause_words(one.name, language) for one in causes)
    right = next(place for place, one in enumerate(causes) if one.name == case.cause)

    def judge(given: Any) -> Judged:
        place = Choice("", names, right).read(str(given))
        if place == right:
            return Judged(1.0, "")
        told = {"cause": names[place], "signature": of_cause(causes[place], "signature", language)}
        return Judged(0.0, say("rounds.log-wrong", language, **told))

    said = (
        say("rounds.log-evidence", language, evidence=of_case(case, "evidence", language)),
        say("rounds.log-cure", language, cure=of_cause(causes[right], "cure", language)),
        say("rounds.log-mend", language, number=case.number),
    )
    end = tuple(page.paragraph(text, lang=lang(language)) for text in (names[right], *said))
    asked, key = say("rounds.log", language, ranks=opened.chart.ranks), f"clinic/{case.number}"
    about = {
        "title": of_case(case, "title", language),
        "shown": chart_parts(opened, language),
        "options": names,
        "rubric": end,
        "judge": judge,
    }
    return Turn("log", "choice", key, CAUSES[case.cause].chapter, asked, asked, **about)


def near_causes(case: Case, dice: Random) -> list[Cause]:
    """The cause of a case among the nearest others: of the same symptom first, then of the same chapter."""
    own = CAUSES[case.cause]
    others = [one for one in CAUSES.values() if one is not own]
    dice.shuffle(others)
    others.sort(key=lambda one: (one.symptom != own.symptom, one.chapter != own.chapter))
    chosen = [own, *others[: OPTIONS - 1]]
    dice.shuffle(chosen)
    return chosen


def cause_words(name: str, language: str) -> str:
    """A cause by its name; in Chinese with the English one behind it, which the clinic knows."""
    words = say(f"cause.{name.replace(' ', '-')}", language)
    return words if language == "en" else f"{words}（{name}）"


def chart_parts(opened: Opened, language: str) -> tuple[page.Part, ...]:
    """Complaint, program, log and timeline of a run."""
    case, chart = opened.case, opened.chart
    notes = case.notes(chart.ranks, chart.seed)
    text = "\n\n".join(filter(None, [str(chart), notes]))
    parts = [
        page.paragraph(of_case(case, "complaint", language), lang=lang(language)),
        page.code(inspect.getsource(case.job).rstrip()),
    ]
    parts.append(block(text))
    if chart.trace.spans:
        parts.append(picture(draw(chart.trace, title=case.title), ""))
    return tuple(parts)


def _ended(title: str, language: str) -> str:
    """A title as a sentence of its own: with a full stop, where it does not end one."""
    return title if language == "zh" or title.endswith(("?", "!", ".")) else f"{title}."


def code(task: Task, language: str) -> Turn:
    """A gap of a chapter: it is run on fresh inputs and graded, and the progress of the exercise follows."""
    said, begin = stub(task, language)
    title = title_in(task.name, task.title, language)
    exercise = EXERCISES[task.name]

    def judge(given: Any) -> Judged:
        fn = given if isinstance(given, Callable) else function_from(str(given), task.name, imported(task))
        if fn is None:
            return Judged(0.0, say("rounds.code-none", language, name=task.name))
        report = grade(exercise, fn)
        said = say(f"rounds.code-{'report' if report.verdicts else 'stub'}", language, report=repr(report))
        return Judged(1.0 if report.passed else 0.5 * report.score, said)

    asked = say("rounds.code", language, name=task.name, title=_ended(title, language), minutes=task.minutes)
    note = (page.markdown(said_in_chinese(task.name)["note"] if language == "zh" else exercise.solution_note),)
    about = {
        "title": f"{task.name}: {title}",
        "shown": (page.markdown(said),),
        "stub": begin,
        "rubric": note,
        "judge": judge,
    }
    return Turn("code", "code", f"exercise/{task.name}", task.chapter, asked, asked, **about)
