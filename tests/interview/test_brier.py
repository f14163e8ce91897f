"""Calibration: scores by hand, a learner who is as right as he is sure, one who is too sure, topics, both languages."""

from random import Random

import pytest

from parallel_lab.course import progress
from parallel_lab.interview.brier import LEAST, Stated, by_topic, calibration, chapter_of, curve, drawing, score, stated


def answers(count, sure_less, seed=0):
    """Answers of one whose chance of being right is his confidence less `sure_less`."""
    dice = Random(seed)
    drawn = [(dice.choice(["03", "09"]), dice.choice([0.25, 0.5, 0.75, 0.95])) for _ in range(count)]
    return [Stated(chapter, sure, dice.random() < sure - sure_less) for chapter, sure in drawn]


def test_the_score_by_hand():
    of = score([Stated("03", 0.9, True), Stated("03", 0.6, False)])
    assert of.brier == pytest.approx((0.01 + 0.36) / 2)
    assert (of.right, of.base, of.bias) == (0.5, 0.25, pytest.approx(0.25))
    with pytest.raises(ValueError, match="nothing to score"):
        score([])


def test_one_who_is_as_right_as_sure_lies_on_the_diagonal():
    found = answers(4000, 0.0)
    assert all(point.low <= point.confidence <= point.high for point in curve(found))
    # The expected score of calibrated answers is the mean of c (1 - c).
    assert score(found).brier == pytest.approx(sum(c * (1 - c) for c in (0.25, 0.5, 0.75, 0.95)) / 4, abs=0.01)


def test_one_who_is_too_sure_lies_below_and_scores_worse():
    found = answers(4000, 0.2)
    assert all(point.high < point.confidence for point in curve(found))
    assert score(found).bias == pytest.approx(0.2, abs=0.03)
    assert score(found).brier > score(answers(4000, 0.0)).brier


def test_bins_with_few_answers_are_joined():
    found = [Stated("03", 0.25, False)] * 3 + [Stated("03", 0.5, True)] * 3 + [Stated("03", 1.0, True)] * 9
    assert [point.answers for point in curve(found)] == [6, 9]
    assert [point.answers for point in curve(found[:2])] == [2]


def test_topics_have_their_own_scores():
    found = by_topic([Stated("09", 0.5, True), Stated("03", 0.9, False), Stated("09", 0.5, False)])
    assert list(found) == ["03", "09"] and (found["09"].count, found["09"].right) == (2, 0.5)


def test_what_belongs_to_which_chapter():
    keys = ("E5/definition", "drill/ring-bytes", "exercise/ring_all_reduce", "quiz/09-1", "clinic/7", "term/bucket/zh")
    assert [chapter_of(key) for key in keys] == ["07", "02", "02", "09", "14", "02"]
    gone = ("E5/gone", "drill/gone", "exercise/gone", "clinic/99", "clinic/x", "term/gone/zh", "other/1")
    assert [chapter_of(key) for key in gone] == [""] * 7


def test_answers_come_from_the_log_of_progress():
    progress.record_review("E5/definition", 3, "self", 0.8)
    progress.record_review("E5/definition", 2, "self", 0.6)
    progress.record_review("E5/definition", 3, "self")
    progress.record_review("gone/definition", 3, "self", 0.9)
    assert stated() == [Stated("07", 0.8, True), Stated("07", 0.6, False)]
    page = calibration(language="zh")
    assert (page.score.count, page.curve[0].answers, list(page.topics)) == (2, 2, ["07"])
    text = repr(page)
    assert "共 2 次回答" in text and "不到 20 次" in text and "你过于自信" in text and "07 模型并行" in text
    assert 'src="data:image/png;base64,' in page._repr_html_() and 'lang="zh"' in page._repr_html_()
    assert calibration(chapter="09").answers == []


def test_every_answer_stands_in_the_curve():
    few = [Stated("09", 0.5, True)] * LEAST + [Stated("09", 0.95, False)] * (LEAST - 1)
    for some in (few, few[:LEAST], few[LEAST:], [*few, few[-1]]):
        assert sum(point.answers for point in curve(some)) == len(some)


def test_a_chapter_that_is_none_is_said():
    assert calibration(chapter="9") == calibration(chapter="09")
    with pytest.raises(ValueError, match="There is no chapter '77'"):
        calibration(chapter="77")


def test_without_answers_one_sentence_stands_there():
    assert "There is no answer with a confidence yet" in repr(calibration())


@pytest.mark.parametrize(("less", "said"), [(0.2, "too sure"), (-0.2, "more than you think"), (0.0, "as right as you")])
def test_the_verdict(less, said):
    page = calibration()
    assert said in repr(type(page)(answers(3000, less)))


def test_the_picture_has_all_answers_and_the_topics_with_most():
    text = drawing(answers(200, 0.1)).text
    assert "as sure as right" in text and "all answers" in text and "chapter 03" in text and "chapter 09" in text
