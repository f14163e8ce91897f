"""What is due: the weakest first, new ones a few a day, no more than there is time for."""

from datetime import timedelta

import pytest

from parallel_lab.course import progress
from parallel_lab.interview.queue import NEW_A_DAY, TIERS, in_order, items, mistakes, new_ones, todays, within


def keys(found):
    return [item.key for item in found]


def test_new_ones_are_a_few_a_day_and_count_what_was_begun_today(clock):
    first = todays()
    assert first.due == [] and len(first.new) == NEW_A_DAY and first.later is None
    for item in first.new[:5]:
        progress.record_review(item.key, 3, "quiz")
    again = todays()
    assert keys(again.new) == keys(first.new[5:]) and again.due == []
    clock.forward(days=1)
    assert len(todays().new) == NEW_A_DAY


def test_what_was_begun_comes_before_the_next_chapter(clock):
    assert todays().new[0].chapter == "00"
    progress.record_drill("pipeline-bubble")
    new = todays().new
    assert new[0].chapter == "09" and new[0].kind in TIERS[0]
    tiers = [next(n for n, kinds in enumerate(TIERS) if item.kind in kinds) for item in new if item.chapter == "09"]
    assert tiers == sorted(tiers)


def test_due_is_what_falls_on_today_the_weakest_first(clock):
    for key, rating in (("E5/definition", 3), ("E6/definition", 1), ("A5/definition", 4)):
        progress.record_review(key, rating, "quiz")
    assert todays().due == [] and todays().later == clock.at + timedelta(days=1)
    clock.forward(days=1, hours=-4)
    assert keys(todays().due) == ["E6/definition"], "what is due in the evening is due in the morning"
    clock.forward(days=30)
    assert keys(todays().due) == ["E6/definition", "E5/definition", "A5/definition"]
    assert keys(todays("09").due) == ["A5/definition"]


def test_what_is_learned_comes_back_within_minutes(clock):
    progress.record_review("E5/definition", 1, "self")
    progress.record_review("E6/definition", 1, "quiz")
    assert keys(todays().due) == ["E5/definition"]
    everything = items(progress.read()["reviews"])
    assert keys(in_order(everything, clock.at - timedelta(hours=1))[0]) == []


def test_with_a_date_the_order_is_that_of_the_expected_recall_on_it(clock):
    # A has the higher stability and was seen longer ago: it is weaker now, and stronger in a year.
    progress.record_review("A5/definition", 4, "quiz")
    clock.forward(days=13)
    progress.record_review("E5/definition", 3, "quiz")
    clock.forward(days=3)
    everything = items(progress.read()["reviews"])
    now, late = in_order(everything, clock.at)[0], in_order(everything, clock.at, clock.at + timedelta(days=60))[0]
    assert keys(now) == ["A5/definition", "E5/definition"] and keys(late) == ["E5/definition", "A5/definition"]


def test_minutes_bound_the_load_and_due_ones_come_before_new_ones(clock):
    for item in [item for item in new_ones(items({})) if item.kind == "definition"][:40]:
        progress.record_review(item.key, 1, "quiz")
    clock.forward(days=3)
    queue = todays(minutes=10)
    assert queue.seconds <= 600 and queue.left_out > 0 and queue.new == []
    assert len(queue.due) + queue.left_out == 40
    assert within(queue.due, 0) == []


def test_what_cannot_be_is_said_in_a_sentence():
    with pytest.raises(ValueError, match="no chapter 'x'"):
        todays("x")
    with pytest.raises(ValueError, match="no time"):
        todays(minutes=0)


def test_failed_exercises_are_named_until_they_pass(clock):
    progress.record_exercise("ring_shift", 0.5, failed=True)
    assert mistakes() == ["ring_shift"]
    progress.record_exercise("ring_shift", 1.0)
    assert mistakes() == []


def test_a_short_time_still_asks_one(clock):
    """A drill takes longer than a minute: who has one minute is asked one thing, and never nothing."""
    assert len(todays(minutes=1).new) == 1
