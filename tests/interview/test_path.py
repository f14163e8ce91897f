"""The path: what is done, due and next, as a picture and as a table, in both languages."""

import pytest

from parallel_lab.course import progress
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.tasks import tasks
from parallel_lab.interview.course_path import path, path_page, way


def row(page, chapter):
    return next(line for line in repr(page).splitlines() if line.startswith(f"{chapter} "))


def test_nothing_done_is_nothing_claimed():
    chapters = {one.number: one for one in way()}
    assert list(chapters) == list(TITLES)
    assert all(one.state == "open" and not one.due for one in chapters.values() if any(one.there.values()))
    assert chapters["07"].there["cards"] > 10 and chapters["02"].there["drills"] >= 3
    assert repr(path_page()).endswith(f"Next: {next(iter(tasks().values()))}.")


def test_what_is_done_counts(clock):
    progress.record_exercise("ring_all_reduce", 1.0)
    progress.record_exercise("ring_chunks", 0.5, failed=True)
    progress.record_quiz("02_collectives_and_topologies", 1.0)
    progress.record_drill("ring-bytes")
    progress.record_card("C7", "knew")
    progress.record_card("F9", "missed")
    (two,) = [one for one in way() if one.number == "02"]
    assert two.done == {"exercises": 1, "quizzes": 1, "drills": 1, "cards": 1} and two.state == "begun"
    assert "Failed the last time: ring_chunks." in repr(path_page())


def test_what_fades_is_due(clock):
    progress.record_review("C7/definition", 3, "self")
    clock.forward(days=30)
    assert "Due today: 1." in repr(path_page()) and "今天待复习：1。" in repr(path_page("zh"))
    (two,) = [one for one in way() if one.number == "02"]
    assert two.due == 1


def test_a_chapter_and_the_course_end():
    for name in tasks():
        progress.record_exercise(name, 1.0)
    page = path_page()
    assert "All exercises are solved." in repr(page) and "Next:" not in repr(page)
    assert path().text == repr(page)


def test_the_picture_names_the_next_chapter():
    progress.record_exercise("sum_of_ranks", 1.0)
    drawn = path()
    assert "stops" in drawn.alt and "1 of " in drawn.alt
    marked = [text.get_text() for text in drawn.figure.axes[0].texts if text.get_text().startswith("next")]
    assert len(marked) == 1


def test_both_languages():
    assert "未开始" in repr(path_page("zh")) and "not begun" in repr(path_page("en"))
    assert row(path_page("zh"), "09").startswith("09 流水线并行")
    with pytest.raises(ValueError, match="no language 'de'"):
        path_page("de")
