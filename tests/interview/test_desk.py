"""The widget: choosing, each kind of turn, the clock, stopping, the report; and the page without widgets."""

import pytest

from parallel_lab.course import progress
from parallel_lab.course.typed import UnknownName
from parallel_lab.interview import judged, rounds
from parallel_lab.interview.desk import mock_interview
from parallel_lab.interview.noted import Opinion
from parallel_lab.interview.rounds import Turn


@pytest.fixture
def short(monkeypatch, clock):
    def log(case, language, dice):
        judge = lambda given: rounds.Judged(float(given == "a"), "")  # noqa: E731
        return Turn("log", "choice", f"clinic/{case.number}", "23", "which?", options=("x", "y"), judge=judge)

    monkeypatch.setattr(judged, "log", log)
    return clock


@pytest.fixture
def desk(short, by_kind):
    return Driver(mock_interview("lead", 15, "en", seed=1), by_kind)


class Driver:
    """A desk and its widgets."""

    def __init__(self, desk, by_kind):
        self.desk, self.by_kind = desk, by_kind
        self.box = desk.form()

    def all(self, kind):
        return self.by_kind(self.box, kind)

    def press(self, words):
        next(one for one in self.all("Button") if one.description == words).click()

    @property
    def text(self):
        return "\n".join(one.value for one in self.all("HTML"))

    def until(self, part):
        while self.desk.interview.turn.part != part:
            self.desk.interview.go_on()


def test_role_length_and_language_are_chosen_and_the_language_says_it_anew(desk):
    role, minutes, tongue = desk.all("Dropdown")
    minutes.value = 60
    assert "a design" in desk.text and role.value == "lead"
    tongue.value = "zh"
    role, minutes, tongue = desk.all("Dropdown")
    assert (role.value, minutes.value, tongue.value) == ("lead", 60, "zh")
    assert "设计题" in desk.text
    desk.press("开始")
    assert desk.desk.interview.minutes == 60 and desk.desk.clock.language == "zh-CN"
    assert desk.desk.clock.words["minutes"] == "还剩 {minutes} 分钟。"


def test_an_answer_aloud_is_ticked_and_kept(desk):
    desk.press("Begin")
    clock = desk.desk.clock
    assert (clock.left_s, clock.speak_s, clock.running) == (900.0, 120, True) and clock.text
    desk.all("Dropdown")[0].value = 0.75
    desk.press("I have answered")
    assert "A weak answer" in desk.text and clock.unasked and clock.text == desk.desk.interview.turn.model
    ticks = desk.all("Checkbox")
    assert all(tick.tooltip for tick in ticks)
    for tick in ticks:
        tick.value = True
    desk.press("Keep and go on")
    (note,) = desk.desk.interview.notes
    assert note.word == "strong" and note.confidence == 0.75
    assert "Follow-up 1" in desk.text


def test_a_number_a_cause_and_code(desk):
    desk.press("Begin")
    desk.until("number")
    desk.desk._show()
    desk.all("Text")[0].value = "-1"
    desk.press("Check")
    assert "Not yet" in desk.text
    desk.press("Give up, and show the way")
    assert "The way to it" in desk.text
    desk.press("Go on")
    desk.all("RadioButtons")[0].value = "a"
    desk.press("Check")
    assert "Right" in desk.text
    desk.press("Go on")
    (field,) = desk.all("Textarea")
    assert "raise NotImplementedError" in field.value
    field.value = "def wrong(:"
    desk.press("Run and grade")
    assert "line 1" in desk.text
    desk.press("Take my function from the notebook")
    assert "There is no function" in desk.text
    desk.press("Give up, and show the way")
    desk.press("Go on")
    assert "Report of the interview" in desk.text and "The interview is over." in desk.text
    assert not desk.desk.clock.running


def test_who_presses_twice_skips_nothing(desk):
    """While a job runs, a second press waits, and comes when the next turn is there."""
    desk.press("Begin")
    desk.until("number")
    desk.desk._show()
    desk.press("Give up, and show the way")
    button = next(one for one in desk.all("Button") if one.description == "Go on")
    button.click()
    button.click()
    assert desk.desk.interview.turn.part == "log" and len(desk.desk.interview.notes) == 4


def test_stopping_shows_what_was_kept(desk):
    desk.press("Begin")
    desk.press("I have answered")
    desk.press("Keep and go on")
    desk.press("End the interview")
    assert "was stopped" in desk.text and "Report of the interview" in desk.text
    assert len(progress.read()["interviews"]) == 1


def test_stopping_at_once_has_no_report(desk):
    desk.press("Begin")
    desk.press("End the interview")
    assert "was stopped" in desk.text and "Report" not in desk.text


def test_the_clock_runs_out(desk, short):
    desk.press("Begin")
    desk.desk.clock.over = True
    assert "Time is up." in desk.text
    short.forward(minutes=16)
    desk.press("I have answered")
    desk.press("Keep and go on")
    assert "3 rounds were not reached" in desk.text


def test_what_a_plugged_in_interviewer_heard_is_ticked(short, by_kind):
    def model(turn, given):
        return Opinion([turn.points[-1].key], "I heard the last one.")

    desk = Driver(mock_interview("lead", 15, "en", seed=1, interviewer=model), by_kind)
    desk.press("Begin")
    desk.press("I have answered")
    assert [tick.value for tick in desk.all("Checkbox")][-1] and "I heard the last one." in desk.text


def test_progress_that_cannot_be_saved_is_said(desk, monkeypatch):
    desk.press("Begin")
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", "/proc/none/progress.json")
    desk.press("I have answered")
    desk.press("Keep and go on")
    assert "Progress was not saved" in desk.text


@pytest.mark.parametrize(("language", "words"), [("en", "Mock interview"), ("zh", "模拟面试")])
def test_the_page_without_widgets(language, words):
    desk = mock_interview(language=language)
    assert words in repr(desk) and "plab interview" in repr(desk)
    shown = desk._repr_mimebundle_()
    assert words in shown["text/html"] and "application/vnd.jupyter.widget-view+json" in shown


def test_wrong_names_end_in_a_sentence():
    with pytest.raises(UnknownName, match="nearest"):
        mock_interview("manager")
    with pytest.raises(ValueError, match="choose 15"):
        mock_interview(minutes=20)
