"""The example of an interview: all rounds, what the imagined candidate says, the report, and nothing of it kept."""

import pytest

from parallel_lab.course import progress
from parallel_lab.interview import judged, rounds, sample_interview
from parallel_lab.interview.rounds import Turn


@pytest.fixture
def short(monkeypatch):
    """A case and a task without a run, so that what is tested is the example."""

    def told(given):
        return rounds.Judged(float(given == "a"), "not started")

    def log(case, language, dice):
        return Turn("log", "choice", f"clinic/{case.number}", "23", "which?", options=("x", "y"), judge=told)

    def code(task, language):
        return Turn("code", "code", f"exercise/{task.name}", task.chapter, "write it", stub="pass", judge=told)

    monkeypatch.setattr(judged, "log", log)
    monkeypatch.setattr(judged, "code", code)


@pytest.mark.parametrize(
    ("language", "word", "head"), [("en", "The candidate says", "Report"), ("zh", "应聘者说到了", "面试报告")]
)
def test_every_round_and_the_report_stand_in_it_and_the_learner_keeps_nothing(short, language, word, head):
    progress.record_interview("2026-11-20T10:00:00+00:00", {"role": "lead", "minutes": 15, "turns": [], "seed": 1})
    before = progress.read()
    shown = sample_interview("lead", 15, language, seed=3)
    kinds = [one.turn.part for one in shown.answered]
    assert kinds[0] == "deep" and kinds[-3:] == ["number", "log", "code"]
    text = repr(shown)
    assert word in text and head in text.split("which?")[1], "the report comes last"
    assert all(one.turn.ask in text for one in shown.answered)
    assert progress.read() == before
    assert repr(sample_interview("lead", 15, language, seed=3)) == text, "the same seed asks the same"


def test_half_of_the_points_are_said_and_the_rest_is_missing_in_the_report(short):
    shown = sample_interview("lead", 15, "en", seed=3)
    opening = shown.answered[0].turn
    said, left = opening.model, opening.points[-1].text
    text, report = repr(shown).split("Report of the interview")
    assert said in text and left.split(". ")[0] in report
