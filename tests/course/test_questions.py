"""Question cards: the index is whole, every card is whole, cards show in both languages."""

import re

import pytest

from parallel_lab.course.questions import FOLDER, SECTIONS, Card, ask, card, index, parse
from parallel_lab.course.typed import UnknownName

CARDS = [file for file in sorted(FOLDER.iterdir(), key=str) if file.name.endswith(".md") and file.name[0] != "_"]


def test_index_holds_every_question():
    assert len(index()) == 90
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
