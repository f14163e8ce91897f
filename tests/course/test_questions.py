"""Question cards: the index is whole, the validator sees what is missing, cards show in both languages."""

import pytest

from parallel_lab.course.questions import SECTIONS, Card, UnknownQuestion, ask, card, index, parse, problems


def test_index_holds_every_question():
    assert len(index()) == 90
    assert {q.kind for q in index().values()} == {"ask", "code", "topic"}
    assert all(q.ask and q.zh and len(q.chapter) == 2 for q in index().values())
    assert sum(bool(q.test) for q in index().values()) == 20


def test_cards_of_the_course_are_valid():
    assert problems() == []


def write(folder, name="B1", front="id: B1\nevidence: 01#b1-survival\nstatus: draft", sections=None):
    sections = sections or dict.fromkeys(SECTIONS, "text")
    body = "".join(f"## {heading}\n\n{text}\n\n" for heading, text in sections.items())
    (folder / f"{name}.md").write_text(f"---\n{front}\n---\n{body}", encoding="utf-8")


def test_whole_card_has_no_problems(tmp_path):
    write(tmp_path)
    write(tmp_path, "_TEMPLATE", front="no: matter")
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sections": dict.fromkeys(list(SECTIONS)[1:], "x")}, "section '30 seconds' is missing"),
        ({"sections": {h: "" if h == "30 秒" else "x" for h in SECTIONS}}, "section '30 秒' is empty"),
        ({"sections": dict.fromkeys((*SECTIONS, "More"), "x")}, "section 'More' is not known"),
        ({"front": "id: B2\nevidence: 01#x\nstatus: draft"}, "the front matter says id 'B2'"),
        ({"front": "id: B1\nevidence: nowhere\nstatus: draft"}, "not notebook#cell-tag"),
        ({"front": "id: B1\nevidence: 01#x\nstatus: done"}, "status is 'done'"),
        ({"front": "- a list"}, "not a list of `key: value`"),
        ({"front": "a: [1"}, "not YAML"),
        ({"name": "Z9"}, "the index has no such question"),
    ],
)
def test_validator_names_the_fault(tmp_path, change, said):
    write(tmp_path, **change)
    assert any(said in one for one in problems(tmp_path)), problems(tmp_path)


def test_text_without_front_matter_is_refused():
    with pytest.raises(ValueError, match=r"B1\.md: no front matter"):
        parse("## 30 seconds\n", "B1.md")


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
    assert isinstance(caught.value, UnknownQuestion)
    assert str(caught.value) == "there is no question 'E55'; the nearest are E5, E25, E15"
