"""Sprints: the score, what is too late, what is kept, the form."""

import pytest

from parallel_lab import sprint
from parallel_lab.course import progress
from parallel_lab.course.sprints import Sprint, best
from parallel_lab.course.typed import UnknownName


class Clock:
    """Seconds that pass when they are told to."""

    s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def clock():
    return Clock()


def right(one):
    return f"{one.drawn.answer:.6g}"


def test_the_score_counts_at_once_whole_and_after_a_wrong_answer_half(clock):
    race = Sprint(10, clock=clock).start()
    assert race.answer(right(race.ask()))[0]
    one = race.ask()
    assert not race.answer("-1")[0] and race.answer(right(one))[0]
    race.ask().give_up()
    skipped = race.tried[-1].name
    assert race.score == 1.5
    text = repr(race.report())
    assert "Score 1.5: 1 solved at once, 1 after a wrong answer." in text and skipped in text
    (kept,) = progress.read()["sprints"].values()
    assert kept["score"] == 1.5 and kept["asked"] == 3 and kept["missed"] == [skipped]
    assert best(10, None) == 1.5 and best(5, None) is None and best(10, "09") is None


def test_too_late_counts_nothing_and_ends_it(clock):
    race = Sprint(2, chapter="09", clock=clock).start()
    one = race.ask()
    clock.s = 121
    said = race.answer(right(one))
    assert said == (False, "The time is over; this answer does not count.")
    assert race.ask() is None and race.score == 0 and progress.read()["drills"] == {}
    assert "The time is over.\nScore 0: " in repr(race.report())


def test_a_chapter_is_asked_round_and_round_and_the_best_before_is_told(clock):
    first = sprint(1, chapter=9).start()
    first.answer(right(first.ask()))
    first.keep()
    race = Sprint(1, chapter="09", clock=clock).start()
    names = [race.ask().name for _ in range(8)]
    assert len(set(names[:4])) == 4 and set(names[4:]) == set(names[:4])
    assert "Your best one of 1 minute over chapter 09 before: 1." in repr(race.report())


def test_nothing_is_kept_of_a_sprint_without_an_answer(clock):
    race = Sprint(1, clock=clock).start()
    race.ask()
    race.report()
    assert progress.read()["sprints"] == {}


def test_the_form_starts_goes_on_and_ends(clock, by_kind):
    form = Sprint(1, clock=clock).form()
    place = form.children[1]
    place.children[0].click()
    shown, score, row, buttons = place.children
    assert shown.left_s == 60 and shown.running and "Score 0" in score.value
    row.children[2].click()
    assert "not a number" in row.children[3].value
    buttons.children[0].click()
    assert place.children[2] is not row
    place.children[3].children[1].click()
    assert "Score 0" in place.children[0].value and not shown.running
    place.children[1].click()
    clock.s += 61
    place.children[3].children[0].click()
    assert "The time is over" in place.children[0].value
    assert [one.description for one in by_kind(form, "Button")] == ["Another sprint"]


def test_the_clock_in_the_browser_ends_it(clock):
    place = Sprint(1, clock=clock).form().children[1]
    place.children[0].click()
    clock.s = 60
    place.children[0].over = True
    assert "The time is over" in place.children[0].value


def test_the_page_says_where_to_run_it():
    assert "plab drill --sprint --minutes 5 --chapter 09" in repr(sprint(5, "09"))


def test_wrong_input_is_a_sentence():
    with pytest.raises(ValueError, match="1 to 120 minutes, and 0 is not"):
        sprint(0)
    with pytest.raises(UnknownName, match="no chapter with drills '88'"):
        sprint(chapter="88")
