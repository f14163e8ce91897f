"""The plan for a date: backwards from it, within the minutes of each day, and honest about what it leaves out."""

from datetime import date, timedelta

import pytest

from parallel_lab.course import progress
from parallel_lab.interview.portions import LEVELS, Portion, minutes_of, portions
from parallel_lab.interview.prepared import _ranges, prepare
from parallel_lab.interview.queue import items, todays
from parallel_lab.interview.schedule import forget, keep, kept, plan_of, planned

TODAY = date(2026, 11, 28)


def portion(kind: str, chapter: str, minutes: float, names: int = 0) -> Portion:
    level, keys = LEVELS.index(kind), tuple(f"{chapter}-{n}" for n in range(names))
    return Portion(level, chapter, keys, 60 * minutes, asked=kind.startswith("tier"))


def small(left: int, minutes: int, *todo: Portion):
    return plan_of(todo, [], TODAY, TODAY + timedelta(days=left), minutes)


def test_chapters_stand_backwards_from_the_date_in_their_order():
    plan = small(10, 10, *(portion("page", chapter, 10) for chapter in ("03", "01", "02")))
    days = {one.chapter: n for n, day in enumerate(plan.days) for one in day.new}
    assert days == {"01": 5, "02": 6, "03": 7}, "the last fifth of the days is for rehearsal"
    assert plan.left_out == [] and [n for n, day in enumerate(plan.days) if day.pages] == [9]
    assert plan.latest["01"] == TODAY + timedelta(days=5)


def test_what_is_long_takes_several_days_and_what_is_learned_is_reviewed_after():
    plan = small(20, 10, portion("exercises", "01", 25, 1), portion("tier-0", "02", 3, 4))
    assert sum(1 for day in plan.days if any(one.chapter == "01" for one in day.new)) == 4
    begun = next(n for n, day in enumerate(plan.days) if any(one.chapter == "02" for one in day.new))
    reviews = [n for n, day in enumerate(plan.days) if day.review_s]
    assert reviews == [begun + 2, begun + 13] if begun + 13 < 20 else [begun + 2]
    assert plan.days[begun + 2].review_s == pytest.approx(180 / 0.9)


def test_what_does_not_fit_is_left_out_the_least_important_first():
    todo = [portion("page", "01", 20), portion("tier-0", "01", 10, 5), portion("exercises", "01", 60, 1)]
    plan = small(3, 20, *todo)
    assert [one.kind for one in plan.left_out] == ["exercises"] and plan.need_s > plan.have_s >= plan.used_s
    assert small(1, 20, *todo).left_out == todo[1:]
    assert small(1, 10, *todo).taken() == {}


@pytest.mark.parametrize(("left", "minutes"), [(1, 40), (7, 40), (45, 30), (120, 60)])
def test_no_day_holds_more_than_its_minutes(clock, left, minutes):
    plan = planned(TODAY + timedelta(days=left), minutes)
    assert len(plan.days) == left and plan.days[0].at == TODAY
    assert all(day.new_s + day.review_s + day.mock_s <= 60 * minutes + 1e-6 for day in plan.days)
    placed = {one for day in plan.days for one in day.new}
    assert placed == set(plan.chosen) and not placed & set(plan.left_out)
    order = [one.chapter for day in plan.days for one in sorted(day.new, key=lambda one: (one.chapter, one.level))]
    assert order == sorted(order)
    for one in plan.chosen:
        if one.kind in ("tier-1", "tier-2", "tier-3") and one.chapter not in ("00", "24"):  # these have no cards
            before = f"tier-{int(one.kind[-1]) - 1}"
            assert any(other.chapter == one.chapter and other.kind == before for other in plan.chosen)


def test_what_was_solved_is_not_planned_again(clock):
    def of(kind, chapter):
        found = portions(items(progress.read()["reviews"]), progress.read())
        return [name for one in found if (one.kind, one.chapter) == (kind, chapter) for name in one.names]

    assert minutes_of("09") == (10, 100) and minutes_of("99") == (10, 80)
    assert "ring_chunks" in of("gaps", "02") and "C7/definition" in of("tier-0", "02")
    progress.record_exercise("ring_chunks", 1.0)
    progress.record_review("C7/definition", 3, "self")
    assert "ring_chunks" not in of("gaps", "02") and "C7/definition" not in of("tier-0", "02")


def test_reviews_follow_the_plan(clock):
    plan = planned(TODAY + timedelta(days=7), 40)
    assert keep(plan) == "" and kept().taken() == plan.taken()
    queue, taken = todays(), plan.taken()
    assert queue.new and all(taken[item.chapter] > 0 for item in queue.new)
    assert len(queue.new) <= plan.new_a_day() and queue.seconds <= 40 * 60
    progress.record_review("E5/definition", 4, "quiz")
    clock.forward(days=2)
    progress.record_review("E5/definition", 4, "quiz")
    assert todays().later.date() == plan.day, "nothing is put off beyond the date"
    clock.forward(days=6)
    assert kept() is None and len(todays().new) == 20
    forget()
    assert progress.read()["preparations"]["interview"].keys() == {"when"}


def test_it_is_shown_in_two_languages_with_a_picture(clock):
    one = prepare("2027-01-20", minutes=30)
    said = repr(one)
    assert "53 days of 30 minutes are 26.5 hours" in said and "does not suffice" in said and "Left out: " in said
    assert "begin by" in said and "mock interviews of 15 minutes" in said
    assert "data:image/png" in one._repr_html_() and one.draw().alt.startswith("Planned minutes a day")
    chinese = repr(prepare(language="zh"))
    assert "时间不够" in chinese and "排不下的" in chinese and "最晚开始" in chinese
    assert _ranges(["01", "03", "04", "06"]) == "01, 03-04, 06"
    assert "The time suffices" in repr(prepare(TODAY + timedelta(days=500), minutes=60))


def test_what_cannot_be_planned_is_said_in_a_sentence(clock):
    with pytest.raises(ValueError, match="no date yet"):
        prepare()
    for day, minutes, said in (
        ("soon", 40, "'soon' is no date"),
        ("2026-11-28", 40, "is not ahead"),
        ("2036-11-28", 40, "a plan reaches"),
        ("2027-11-28", 1, "make no plan"),
    ):
        with pytest.raises(ValueError, match=said):
            prepare(day, minutes=minutes)
