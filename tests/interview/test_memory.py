"""Memory: FSRS's own numbers, no state but the log, the same on two machines, no interval beyond a date."""

from datetime import UTC, datetime, timedelta

import fsrs
import pytest

from parallel_lab.course import progress
from parallel_lab.course.drills import listed
from parallel_lab.course.events import AGAIN, GOOD, event, union
from parallel_lab.course.quizzes import sheets
from parallel_lab.course.tasks import tasks
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.feeds import feeders, feeds, log_of
from parallel_lab.interview.memory import good_path, recall, replay, reviewed, scheduler

START = datetime(2026, 11, 28, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def always(rating: int, times: int, source: str = "self", until: datetime | None = None) -> list[float]:
    """The intervals in days, if every review is done when it is due."""
    at, state, found = START, None, []
    for _ in range(times):
        state = reviewed(state, at, rating, source, until)
        found.append((state.due - at) / DAY)
        at = state.due
    return found


def test_intervals_are_those_of_the_package():
    assert always(GOOD, 4)[1:] == [2, 11, 46] and always(GOOD, 1)[0] == pytest.approx(10 / 1440)
    assert always(GOOD, 3, "drill") == [2, 11, 46], "what a machine saw comes back after days, not after minutes"
    assert always(AGAIN, 1)[0] == pytest.approx(1 / 1440) and always(AGAIN, 1, "exercise") == [1]
    assert good_path(100) == (0, 2, 13, 59)


def test_recall_is_the_formula_and_the_package_agrees():
    card = fsrs.Card(card_id=1, stability=7.0, difficulty=5.0, last_review=START)
    for days in (0, 1, 7, 30):
        of_package = scheduler().get_card_retrievability(card, START + days * DAY)
        assert recall(7.0, days) == pytest.approx(of_package, abs=1e-12)
    assert recall(7.0, 7) == pytest.approx(0.9, abs=1e-12)


def test_no_interval_is_longer_than_the_days_that_are_left():
    assert always(GOOD, 4, "drill", START + 20 * DAY) == [2, 11, 7, 70], "after the date it is as without one"
    assert always(GOOD, 3, "drill", START + DAY) == [1, 7, 32], "reviewed earlier, it gains less"


def test_the_state_is_the_log_in_any_order_and_two_machines_agree():
    log = [event(START + n * DAY, rating, "self") for n, rating in enumerate((3, 3, 1, 2, 4))]
    whole = replay(log)
    assert whole == replay(reversed(log)) == replay(union(log[:3], log[1:])) and whole.reviews == 5
    assert replay([]) is None and 0 < whole.recall(whole.due) < whole.recall(whole.last) <= 1


def test_a_drill_and_an_exercise_feed_their_atoms(clock):
    key, (source, *_) = next((key, keys) for key, keys in feeders().items() if keys[0].startswith("drill/"))
    progress.record_drill(source.removeprefix("drill/"))
    clock.forward(days=2)
    progress.record_review(key, GOOD, "self")
    log = log_of(key, progress.read()["reviews"])
    assert [one["from"] for one in log] == ["self", "drill"] and replay(log).due == clock.at + 11 * DAY


def test_what_feeds_and_what_is_fed_exists():
    quizzes = {f"quiz/{number}-{n}" for number, sheet in sheets().items() for n in range(1, len(sheet.quiz) + 1)}
    sources = {f"drill/{name}" for name in listed()} | {f"exercise/{name}" for name in tasks()} | quizzes
    assert [key for key in feeds() if key not in sources] == []
    assert sorted({key for keys in feeds().values() for key in keys} - set(atoms())) == []
    assert all(keys and len(keys) <= 6 and len(set(keys)) == len(keys) for keys in feeds().values())
