"""The design round: the planner's best is a strong answer, what does not fit is missed, what is no layout is said."""

import pytest

from parallel_lab.interview.designs import best, design, judged
from parallel_lab.interview.roles import Design, designs

ASKED = Design("llama3-8b", "h100-ib", 64, 256)


def test_the_planners_best_is_strong_and_others_are_told_how_far_they_are():
    scheme = best(ASKED).scheme
    assert judged(ASKED, f"tp={scheme.tp} pp={scheme.pp} zero={scheme.zero}", "en").result == 1.0
    slow = judged(ASKED, "tp=8 pp=8 zero=1 recompute=selective", "en")
    assert slow.result < 0.5 and "% more than the best" in slow.said and "Simulated" in slow.said
    assert "模拟" in judged(ASKED, "tp=8", "zh").said


def test_what_does_not_fit_is_missed():
    one = judged(Design("llama3-70b", "h100-ib", 64, 128), "tp=8", "en")
    assert one.result == 0 and "does not fit" in one.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Type a layout"),
        ("tp=8 pp=16", "128"),
        ("speed=9", "speed"),
        ("tp=3", "."),
        ("eight", "."),
        ("tp=half", "whole"),
    ],
)
def test_what_is_no_layout_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        judged(ASKED, text, "en")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_question_has_all_the_numbers(language):
    turn = design(ASKED, language)
    for number in ("8.0 G" if language == "en" else "8.0B", "32", "64", "256", "8,192", "80 GiB"):
        assert number in turn.ask
    assert turn.judge and turn.rubric[0].text and "dp=64" in turn.rubric[0].text
    assert len({one.key for one in designs()}) == len(designs())
