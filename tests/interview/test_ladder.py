"""The ladder: what a verdict and a number bring, what is kept, in which order sentences come, the form."""

import pytest

from parallel_lab.course import progress
from parallel_lab.interview import climbing
from parallel_lab.interview.atoms import Atom
from parallel_lab.interview.climbing import Climb, Rung, climb
from parallel_lab.interview.ladder_form import ladder


def sentence(card, verdict, chapter="21"):
    texts = f"claim of {card}", f"{card} 的说法", f"because of {card}", f"{card} 的原因"
    return Atom(f"{card}/half-truth", card, "half-truth", chapter, *texts, "21_choosing#e14-memory", verdict=verdict)


def number(card, chapter="21"):
    texts = "How many?", "多少？", "2 times 21 is 42 GB", "2 乘 21 是 42 GB"
    return Atom(f"{card}/number", card, "number", chapter, *texts, "21_choosing#e14-memory", value=42.0, unit="GB")


@pytest.fixture
def three(monkeypatch):
    found = [sentence("E14", "half"), sentence("E5", "right", "07"), sentence("C9", "wrong", "07"), number("E14")]
    monkeypatch.setattr(climbing, "atoms", lambda: {one.key: one for one in found})
    return found


def reviews():
    return {
        key: [(one["rating"], one.get("confidence")) for one in entry["log"]]
        for key, entry in progress.read()["reviews"].items()
    }


@pytest.mark.parametrize(
    ("truth", "said", "points", "rating"),
    [("right", "right", 2, 3), ("half", "wrong", 1, 1), ("right", "half", 1, 1), ("right", "wrong", 0, 1)],
)
def test_a_verdict_brings_points_by_how_near_it_is_and_is_kept_with_the_confidence(truth, said, points, rating):
    of = Climb([Rung(sentence("E5", truth), None)])
    shown = of.judge(said, 0.8)
    assert (of.points, of.most) == (points, 2)
    assert reviews() == {"E5/half-truth": [(rating, 0.8)]}
    assert "because of E5" in repr(shown) and ("✓" in repr(shown)) == (truth == said)


@pytest.mark.parametrize(
    ("given", "points", "rating"),
    [(["42"], 2, 3), (["42,000 MB"], 2, 3), (["40", "42"], 1, 2), (["1", "2"], 0, 1), (["what", "42"], 2, 3)],
)
def test_a_number_has_two_tries(given, points, rating):
    of = Climb([Rung(sentence("E14", "half"), number("E14"))], "zh")
    over = [of.answer(text) for text in given]
    assert [done for done, _ in over] == [False] * (len(given) - 1) + [True]
    assert of.points == points and reviews() == {"E14/number": [(rating, None)]}
    assert "2 乘 21" in repr(over[-1][1])


def test_a_number_that_is_given_up_is_shown():
    of = Climb([Rung(sentence("E14", "half"), number("E14"))])
    assert "2 times 21" in repr(of.show_number())
    assert of.points == 0 and reviews() == {"E14/number": [(1, None)]}


def test_too_large_is_said_in_chinese_too():
    of = Climb([Rung(sentence("E14", "half"), number("E14"))], "zh")
    assert "偏大" in repr(of.answer("99")[1])
    assert "Too small" in repr(Climb(of.rungs).answer("1")[1])


def test_new_sentences_come_first_then_those_that_are_due(three, clock):
    of = climb(3, seed=1)
    assert {rung.sentence.card for rung in of.rungs} == {"E14", "E5", "C9"}
    progress.record_review("E5/half-truth", 3, "ladder")
    progress.record_review("C9/half-truth", 1, "ladder")
    assert [rung.sentence.card for rung in climb(3, seed=1).rungs] == ["E14", "C9", "E5"]
    clock.forward(days=400)
    assert climb(1, seed=2).rungs[0].sentence.card == "E14"
    assert [rung.number is not None for rung in climb(3, chapter="21").rungs] == [True]


def test_the_score_is_kept_once_something_was_answered(three, clock):
    of = climb(1, chapter="21", language="zh")
    of.finish()
    assert progress.read()["rounds"] == {}
    of.judge("half")
    clock.forward(minutes=2)
    text = repr(of.finish())
    assert "满分 2 分，得 2 分" in text and "此前" not in text
    assert list(progress.read()["rounds"].values()) == [{"kind": "ladder", "points": 2, "most": 2, "took_s": 120}]
    clock.forward(days=1)
    other = climb(1, chapter="21")
    other.judge("wrong")
    assert "Rounds before this one: 1; the best reached 100.0 %." in repr(other.finish())


def test_what_is_wrong_is_a_sentence(three, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="There is no chapter '77'"):
        climb(chapter="77")
    with pytest.raises(ValueError, match="没有可以判断的句子"):
        climb(chapter="01", language="zh")
    with pytest.raises(ValueError, match="'maybe' is no verdict"):
        climb(1).judge("maybe")
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    (tmp_path / "file").write_text("")
    assert "not saved" in repr(climb(1).judge("half"))


def test_the_form_leads_from_sentence_to_number_to_evidence_to_score(three, by_kind):
    form = ladder(1, chapter="21").form()
    verdict, confidence = by_kind(form, "RadioButtons")
    by_kind(form, "Button")[0].click()
    assert any("Pick an option" in one.value for one in by_kind(form, "HTML"))
    verdict.value, confidence.value = "half", confidence.options[-1][1]
    by_kind(form, "Button")[0].click()
    assert reviews() == {"E14/half-truth": [(3, 0.95)]} and verdict.disabled
    field, (_, check, _) = by_kind(form, "Text")[0], by_kind(form, "Button")
    field.value = "7"
    check.click()
    assert not field.disabled
    field.value = "42"
    check.click()
    *_, run, following = by_kind(form, "Button")
    run.click()
    assert "The evidence for E14" in by_kind(form, "HTML")[-1].value
    following.click()
    assert "3 of 4 points" in by_kind(form, "HTML")[-1].value and not by_kind(form, "Button")


def test_the_form_goes_on_and_gives_up(three, by_kind, monkeypatch):
    form = ladder(2, chapter="07", language="zh").form()
    by_kind(form, "RadioButtons")[0].value = "half"
    by_kind(form, "Button")[0].click()
    monkeypatch.setattr(climbing, "evidence", lambda *args: (_ for _ in ()).throw(ValueError("no chapter")))
    _, run, following = by_kind(form, "Button")
    run.click()
    assert "no chapter" in by_kind(form, "HTML")[-1].value
    following.click()
    assert "第 2 句，共 2 句" in by_kind(form, "HTML")[1].value
    of = ladder(1, chapter="21").form()
    by_kind(of, "RadioButtons")[0].value = "half"
    by_kind(of, "Button")[0].click()
    by_kind(of, "Button")[-1].click()
    assert "2 times 21" in by_kind(of, "HTML")[-2].value


def test_the_page_has_sentences_and_no_verdicts(three):
    page = ladder(3, seed=1)
    text = repr(page)
    assert "claim of E14" in text and "because" not in text and "plab ladder" in text
    assert "text/html" in page._repr_mimebundle_()
