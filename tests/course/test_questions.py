"""Question cards: the index is whole, every card is whole, cards show in both languages."""

import re

import pytest

from parallel_lab.course import page, progress
from parallel_lab.course.questions import FOLDER, SECTIONS, Card, ask, card, index, parse, record
from parallel_lab.course.typed import UnknownName

CARDS = [file for file in sorted(FOLDER.iterdir(), key=str) if file.name.endswith(".md") and file.name[0] != "_"]


def test_index_holds_every_question():
    assert len(index()) == 120
    assert {q.kind for q in index().values()} == {"ask", "code", "topic"}
    assert all(q.ask and q.zh and len(q.chapter) == 2 for q in index().values())
    assert sum(bool(q.test) for q in index().values()) == 20


@pytest.mark.parametrize("file", CARDS, ids=lambda file: file.name)
def test_a_card_is_whole(file):
    """Every section stands once and says something; the front matter names the card and its evidence."""
    name = file.name.removesuffix(".md")
    front, sections = parse(file.read_text(encoding="utf-8"), file.name)
    assert name in index() and front["id"] == name
    assert list(sections) == list(SECTIONS) and all(sections.values())
    assert front["status"] in ("draft", "ready")
    assert re.fullmatch(r"\d\d(_\w+)?#[\w.-]+", front["evidence"])


def write(folder, name="B1", front="id: B1\nevidence: 01#b1-survival\nstatus: draft", sections=None):
    sections = sections or dict.fromkeys(SECTIONS, "text")
    body = "".join(f"## {heading}\n\n{text}\n\n" for heading, text in sections.items())
    (folder / f"{name}.md").write_text(f"---\n{front}\n---\n{body}", encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("## 30 seconds\n", r"B1\.md: no front matter"),
        ("---\n- a list\n---\n", "not a list of `key: value`"),
        ("---\na: [1\n---\n", "not YAML"),
    ],
)
def test_a_card_that_cannot_be_read_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text, "B1.md")


def test_card_shows_both_languages_folded():
    html = ask("b1")._repr_html_()
    assert html.count("<details") == len(SECTIONS)
    assert 'lang="zh"' in html and 'lang="en"' in html
    assert "<script" not in html and "var(--jp-" in html
    text = repr(ask("B1"))
    assert "30-second answer" in text and "分布式训练" in text and "Adding nodes" in text


def test_question_without_card_says_which_chapter(tmp_path):
    one = card(index()["C7"], tmp_path)
    assert isinstance(one, Card) and not one.sections
    assert "chapter 02 will give it" in repr(one)
    assert "chapter 02 will give it" in one._repr_html_()


def test_markup_in_a_card_is_shown_and_not_run(tmp_path):
    write(tmp_path, sections=dict.fromkeys(SECTIONS, "<script>alert(1)</script>"))
    assert "<script>" not in card(index()["B1"], tmp_path)._repr_html_()


def test_unknown_id_names_the_nearest():
    with pytest.raises(KeyError) as caught:
        ask("E55")
    assert isinstance(caught.value, UnknownName)
    assert str(caught.value) == "there is no question 'E55'; the nearest are E5, E25, E15"


@pytest.fixture
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))


def texts(by_kind, form) -> str:
    return "".join(one.value for one in by_kind(form, "HTML"))


def test_form_asks_first_shows_the_answer_on_request_and_keeps_the_own_grade(by_kind, own_progress):
    form = ask("B1").form()
    (show,) = by_kind(form, "Button")
    assert index()["B1"].ask in texts(by_kind, form) and "<details" not in texts(by_kind, form)
    show.click()
    _, *grades = by_kind(form, "Button")
    assert [one.description for one in grades] == ["Knew it", "Partly", "Missed it"]
    assert all(one.tooltip for one in grades) and not by_kind(form, "Output")
    html = texts(by_kind, form)
    assert html.count("<details") == len(SECTIONS)
    assert re.findall(r"<details open><summary>(.*?)<", html) == [
        "30-second answer",
        "A weak answer",
        "A strong answer",
    ]
    grades[1].click()
    assert 'role="status"' in by_kind(form, "HTML")[-1].value and "Noted: partly." in by_kind(form, "HTML")[-1].value
    assert progress.read()["cards"]["B1"]["known"] == "partly"


def test_the_cell_has_the_form_and_a_folded_card_for_where_no_widgets_run():
    bundle = ask("B1")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == ask("B1")._repr_html_() and "<details open" not in bundle["text/html"]


def test_a_question_without_card_has_nothing_to_show(tmp_path, by_kind):
    assert by_kind(card(index()["C7"], tmp_path).form(), "Button") == []


def test_a_grade_is_one_of_three(own_progress):
    assert record("E5", "knew") == ""
    with pytest.raises(ValueError, match="'good' is none of knew, partly, missed"):
        record("E5", "good")
    assert progress.read()["cards"] == {"E5": {"known": "knew", "when": progress.read()["cards"]["E5"]["when"]}}


def test_chinese_items_stay_items_and_lines_are_joined():
    html = page.markdown("一行，\n接着写：\n\n- 第一项。\n- 第二项，\n  接着写。\n").html
    assert html.count("<li>") == 2 and "一行，接着写" in html
