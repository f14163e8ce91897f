"""Predictions: a guess is kept as it was typed, and later compared with what a run measured, in plain words."""

import pytest

from parallel_lab import predict
from parallel_lab.course import progress, quizzes
from parallel_lab.course.asked import Choice, Number, Order
from parallel_lab.course.quizzes import Prediction, Sheet, sheets
from parallel_lab.course.typed import UnknownName

ASKED = {
    "99-bytes": Number("How many?", unit="MB", tolerance=0.05, why="2 (n-1)/n S."),
    "99-rank": Choice("Who waits?", ["rank 0", "rank 1"], why="it comes first."),
    "99-order": Order("Quickest first?", ["star", "tree", "ring"], why="six, four, six."),
}


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(quizzes, "sheets", lambda: {"99": Sheet("99_test", (), ASKED)})
    monkeypatch.setattr(quizzes, "_told", set())


def test_every_file_is_whole():
    for number, sheet in sheets().items():
        assert len(sheet.predict) >= 3
        for name, asked in sheet.predict.items():
            assert name.startswith(f"{number}-") and asked.question.endswith(("?", ".")) and asked.why.endswith(".")


@pytest.mark.parametrize(
    ("name", "given", "measured", "said", "look"),
    [
        ("99-bytes", "600", 750.0, "You said 600 MB, the cell shows 750 MB: 2 (n-1)/n S.", "bad"),
        ("99-bytes", "0.76 GB", 750, "You said 760 MB, the cell shows 750 MB: 2 (n-1)/n S.", "good"),
        ("99-rank", "a", "rank 1", "You said “rank 0”, the cell shows “rank 1”: it comes first.", "bad"),
        ("99-rank", "b", 1, "You said “rank 1”, the cell shows “rank 1”: it comes first.", "good"),
        (
            "99-order",
            "C, a; b",
            ["tree", "ring", "star"],
            "You said ring, star, tree, the cell shows tree, ring, star: six, four, six.",
            "bad",
        ),
        (
            "99-order",
            "b c a",
            ("tree", "ring", "star"),
            "You said tree, ring, star, the cell shows tree, ring, star: six, four, six.",
            "good",
        ),
    ],
)
def test_a_guess_is_kept_and_compared(name, given, measured, said, look):
    kept = predict(name).answer(given)
    assert "You say" in repr(kept)
    assert progress.read()["predictions"][name]["guess"] == given
    compared = predict(name, measured)
    assert repr(compared).splitlines() == ["✓ As you predicted" if look == "good" else "✗ Not as you predicted", said]
    assert compared.look == look


def test_without_a_guess_the_comparison_says_what_was_measured():
    assert repr(predict("99-bytes", 750)) == "You wrote down no guess; the cell shows 750 MB: 2 (n-1)/n S."


def test_a_guess_after_the_answer_is_compared_and_counts_as_none():
    predict("99-bytes", 750)
    assert quizzes.LATE in repr(predict("99-bytes").answer("750"))
    later = predict("99-bytes", 750)
    assert "As you predicted" not in repr(later) and f"{quizzes.LATE}." in repr(later)


def test_a_guess_in_time_may_change_and_stays_where_a_later_one_comes():
    predict("99-rank").answer("a")
    assert quizzes.LATE not in repr(predict("99-rank").answer("b"))
    predict("99-rank", 1)
    assert quizzes.LATE in repr(predict("99-rank").answer("a"))
    assert repr(predict("99-rank", 1)).startswith("✓ As you predicted")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("99-bytes", "many", "'many' is not a number"),
        ("99-rank", None, "Pick an option first."),
        ("99-order", "a b", "Type each letter once, as in: c b a"),
        ("99-order", "a b b", "Type each letter once"),
    ],
)
def test_what_is_no_guess_is_not_kept(name, given, said):
    assert said in repr(predict(name).answer(given))
    assert progress.read()["predictions"] == {}


@pytest.mark.parametrize(
    ("name", "measured", "said"),
    [
        ("99-bytes", "750", r"measured is a number in MB; it is '750'"),
        ("99-bytes", True, "measured is a number in MB"),
        ("99-rank", "rank 2", "measured is one of 'rank 0', 'rank 1', or its place from 0"),
        ("99-rank", 2, "or its place from 0; it is 2"),
        ("99-order", ["star", "tree"], "'star', 'tree', 'ring' in the order that was measured"),
        ("99-order", 3, "in the order that was measured; it is 3"),
    ],
)
def test_another_kind_of_measurement_is_refused(name, measured, said):
    with pytest.raises(TypeError, match=said):
        predict(name, measured)


def test_unknown_name():
    with pytest.raises(UnknownName, match="there is no prediction '99-byte'; the nearest are 99-bytes"):
        predict("99-byte")


@pytest.mark.parametrize(("name", "kind"), [("99-bytes", "Text"), ("99-rank", "RadioButtons"), ("99-order", "Text")])
def test_form_keeps_the_guess_and_shows_it_again(name, kind, by_kind):
    given = {"99-bytes": "600", "99-rank": "b", "99-order": "c b a"}[name]
    form = predict(name).form()
    (field,), (button,) = by_kind(form, kind), by_kind(form, "Button")
    assert field.tooltip and button.tooltip and not by_kind(form, "Output")
    field.value = given
    button.click()
    assert 'role="status"' in by_kind(form, "HTML")[-1].value
    assert by_kind(predict(name).form(), kind)[0].value == given


def test_page_asks_and_tells_nothing():
    shown = predict("99-order")
    assert isinstance(shown, Prediction)
    text = shown._repr_mimebundle_()["text/plain"]
    assert "Quickest first?" in text and "b) tree" in text and "six" not in text
