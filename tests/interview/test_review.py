"""A review: what is asked and judged, in two languages, in a form and to the end."""

from random import Random

import pytest

from parallel_lab.course import progress
from parallel_lab.course.asked import Choice, Number
from parallel_lab.interview.asking import Asking, again_on, sure
from parallel_lab.interview.atoms import atom, atoms
from parallel_lab.interview.queue import Item, items
from parallel_lab.interview.review_form import review
from parallel_lab.interview.sessions import session
from parallel_lab.interview.vocabulary import term, terms


def log(key: str) -> list[tuple[int, str]]:
    return [(one["rating"], one["from"]) for one in progress.read()["reviews"].get(key, {}).get("log", [])]


def asking(key: str, kind: str, **about) -> Asking:
    return Asking(Item(key, kind, "09"), dice=Random(1), **about)


def text(parts) -> str:
    return "\n".join(str(part.text) for part in parts)


def test_what_is_said_aloud_is_judged_by_oneself(clock):
    one = asking("A5/definition", "definition", language="en", answer_language="zh", confidence=0.75)
    assert one.judged is None and "What is pipeline parallelism?" in text(one.question)
    assert "流水线" in text(one.solution()) and "09_pipeline" in text(one.solution())
    one.rate(2)
    one.rate(4)
    assert log("A5/definition") == [(2, "self")] and again_on(one).startswith("Again in ")
    assert progress.read()["reviews"]["A5/definition"]["log"][0]["confidence"] == 0.75


def test_a_number_is_judged_and_mended_or_given_up(clock):
    key = "A5/number"
    right = f"{atom(key).value:g}"
    one = asking(key, "number")
    assert isinstance(one.judged, Number) and one.answer("nothing")[1].startswith("Type a number")
    assert not one.answer(f"{3.3 * atom(key).value:g}")[0] and one.rating is None
    assert one.answer(right) == (True, "") and log(key) == [(2, "quiz")]
    other = asking(key, "number", language="zh", answer_language="zh")
    assert other.answer(f"{3.3 * atom(key).value:g}")[1] == "偏大。" and other.answer("0.0001")[1] == "偏小。"
    other.give_up()
    other.give_up()
    assert log(key)[1:] == [(1, "quiz")] and again_on(other) == "2026-11-29 再问。"


def test_a_half_truth_is_judged_at_once(clock):
    one = next(atom for atom in atoms().values() if atom.verdict == "half")
    half = asking(one.key, "half-truth")
    assert isinstance(half.judged, Choice) and "Right, half right or wrong?" in text(half.question)
    assert half.answer(None)[1] == "Pick an option first." and half.answer("b")[0]
    wrong = asking(one.key, "half-truth", language="zh", answer_language="zh")
    assert not wrong.answer("c")[0] and log(one.key) == [(3, "quiz"), (1, "quiz")]
    assert text(wrong.solution()).startswith("**对一半。**")


def test_a_drill_brings_its_numbers_and_feeds_the_atom(clock):
    one = asking("A5/formula", "formula")
    assert "pipeline-bubble" in one.drills
    one.as_drill()
    assert one.drawn and one.item.kind == "drill" and not one.answer("1e9")[0]
    assert one.answer(f"{one.drawn.answer:.6g}")[0] and log(one.item.key) == [(1, "drill"), (2, "drill")]
    assert progress.read()["drills"]["pipeline-bubble"]["right"] == 1
    assert text(one.solution()).startswith("1. ")


def test_a_question_of_a_self_check_comes_back(clock):
    progress.record_quiz("09_pipeline_parallelism", 0.0, place=0)
    clock.forward(days=1)
    one = session(chapter="9").next()
    assert one.item.key == "quiz/09-1" and one.judged is not None
    one.give_up()
    assert log("quiz/09-1") == [(1, "quiz"), (1, "quiz")] and text(one.solution())


def test_a_typed_confidence_is_a_share():
    assert [sure(""), sure("75"), sure(" 50 % "), sure("0")] == [None, 0.75, 0.5, 0.0]
    for wrong in ("much", "101", "-5"):
        with pytest.raises(ValueError, match=wrong):
            sure(wrong)


def test_a_session_ends_when_what_was_failed_came_back(clock):
    one, asked = session(chapter="07", minutes=5, seed=1), []
    assert "0 due" in text(one.beginning())
    while current := one.next():
        asked.append(current.item.key)
        current.rate(3) if current.judged is None else current.give_up()
        clock.forward(minutes=1)
    assert 5 <= len(asked) <= 10 and len(asked) == len(one.rated)
    assert f"{len(asked)} asked" in repr(one.end()) and "due on" in repr(one.end())
    again = session(chapter="07", minutes=5)
    assert [item.key for item in again.queue.due] == sorted(set(asked) & {item.key for item in again.queue.due})


def test_the_end_names_failed_exercises_in_either_language(clock):
    progress.record_exercise("ring_shift", 0.5, failed=True)
    one = session("zh")
    assert "ring_shift" in repr(one.end()) and "没有提问" in repr(one.end())


def texts(by_kind, form) -> str:
    return "".join(one.value for one in by_kind(form, "HTML"))


def click(by_kind, form, words: str) -> None:
    next(one for one in by_kind(form, "Button") if one.description == words).click()


def test_the_form_asks_reveals_and_keeps_the_own_grade(clock, by_kind):
    form = review(chapter="07").form()
    assert "What is model-parallel computation?" in texts(by_kind, form) and "1 of " in texts(by_kind, form)
    assert atom("A1/definition").answer[:20] not in texts(by_kind, form)
    (confidence,) = by_kind(form, "RadioButtons")
    confidence.value = "95%"
    click(by_kind, form, "Show the answer")
    assert atom("A1/definition").answer[:20] in texts(by_kind, form)
    click(by_kind, form, "Knew it")
    assert "Again in 10 min." in texts(by_kind, form)
    assert progress.read()["reviews"]["A1/definition"]["log"][0]["confidence"] == 0.95
    click(by_kind, form, "Next")
    assert "2 of " in texts(by_kind, form)
    click(by_kind, form, "End here")
    assert "1 asked, 1 known." in texts(by_kind, form)


def test_a_review_shown_twice_asks_the_same_and_what_is_skipped_stays_due(clock, by_kind):
    one = review(chapter="07")
    first, second = one.form(), one.form()
    for form in (first, second):
        assert "What is model-parallel computation?" in texts(by_kind, form) and "1 of " in texts(by_kind, form)
    assert "stays due" not in texts(by_kind, second)
    click(by_kind, second, "Next")
    assert "What is model-parallel computation?" not in texts(by_kind, second)
    assert "without an answer: it stays due" in texts(by_kind, second) and not progress.read()["reviews"]
    one.session.current.rate(3)
    click(by_kind, second, "Next")
    assert "stays due" not in texts(by_kind, second)


def test_the_form_judges_a_number_in_chinese(clock, by_kind):
    progress.record_review("A5/number", 3, "quiz")
    clock.forward(days=5)
    form = review("zh", chapter="09", answer_in="en").form()
    (field,) = by_kind(form, "Text")
    field.value = "1e9"
    click(by_kind, form, "检查")
    assert "还不对" in texts(by_kind, form) and log("A5/number") == [(3, "quiz")]
    field.value = f"{atom('A5/number').value:g}"
    click(by_kind, form, "检查")
    assert "正确" in texts(by_kind, form) and log("A5/number")[1:] == [(2, "quiz")]
    assert atom("A5/number").answer.strip("`")[:10] in texts(by_kind, form)


def test_the_form_changes_to_a_drill_with_fresh_numbers(clock, by_kind):
    progress.record_review("A5/formula", 3, "self")
    clock.forward(days=5)
    form = review(chapter="09").form()
    click(by_kind, form, "With fresh numbers")
    assert "Drill pipeline-bubble · " in texts(by_kind, form)
    click(by_kind, form, "Show the answer")
    assert "Idle / step" in texts(by_kind, form) and log("drill/pipeline-bubble") == [(1, "drill")]


def test_the_page_is_the_same_whatever_is_due(clock):
    before = repr(review())
    progress.record_review("A5/number", 1, "quiz")
    clock.forward(days=5)
    assert repr(review()) == before and "plab review" in before
    assert "plab review --language zh" in repr(review("zh"))
    with pytest.raises(ValueError, match="no language 'fr'"):
        review("fr")


def test_terms_are_asked_of_who_needs_both_languages(clock):
    assert not any(item.kind == "term" for item in session(chapter="09").queue.items)
    key = next(one.key for one in terms() if one.key.endswith("/zh"))
    assert any(item.kind == "term" for item in items({}, terms=True))
    right, wrong = (asking(key, "term", language="zh") for _ in range(2))
    assert right.answer("")[1] == "请输入术语。" and right.answer(term(key).answer) == (True, "")
    assert not wrong.answer("x")[0] and log(key) == [(3, "quiz"), (1, "quiz")]
    assert text(wrong.solution()) == term(key).answer
