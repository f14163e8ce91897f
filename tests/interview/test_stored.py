"""What is read out of the executed chapters: proofs, pictures, first pages."""

import json

import pytest

from parallel_lab.course import workspace
from parallel_lab.course.questions import ask, index
from parallel_lab.interview import stored
from parallel_lab.interview.stored import Picture, chapters, first_page, proof


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """A course with one chapter: a page without a picture, two sections, a picture in the second one."""

    def cell(name, source, kind="code", **more):
        return {"id": name, "cell_type": kind, "source": source, "metadata": more.pop("metadata", {}), **more}

    png = {"output_type": "display_data", "data": {"image/png": "aGVsbG8="}, "metadata": {"alt": "a line"}}
    text = {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]}
    warning = {"output_type": "stream", "name": "stderr", "text": "careful"}
    cells = [
        cell("title", "# 09 · Pipes\n\nWhat they are.", "markdown"),
        cell("page", ["## On one page\n", "\nSay $p$."], "markdown"),
        cell("first", "## 1 First", "markdown"),
        cell("run", "run()", outputs=[warning, text], metadata={"tags": ["a5-run"]}),
        cell("second", "## 2 Second\n\n### Deeper", "markdown"),
        cell("draw", "draw()", outputs=[png]),
        cell("after", "after()", outputs=[]),
    ]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "09_pipes.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(workspace, "root", lambda: tmp_path)
    for remembered in (stored._cells, stored.proof):
        remembered.cache_clear()
    yield tmp_path
    for remembered in (stored._cells, stored.proof):
        remembered.cache_clear()


def test_a_proof_is_what_the_cell_printed_and_the_picture_of_its_section(small_course):
    run, after = proof("09_pipes#a5-run"), proof("09#after")
    assert (run.notebook, run.heading, run.text, run.picture) == ("09_pipes.ipynb", "1 First", "one\ntwo", None)
    assert (after.heading, after.text, after.picture.png, after.picture.alt) == ("Deeper", "", b"hello", "a line")
    assert proof("09#none") is None and proof("77_nothing#run") is None


def test_a_first_page_ends_with_the_next_section(small_course):
    assert first_page("09") == ("09 · Pipes", ["What they are.", "## On one page\n\nSay $p$."])
    with pytest.raises(FileNotFoundError, match="chapter 08 is not at hand"):
        first_page("08")
    file = small_course / "notebooks" / "08_none.ipynb"
    file.write_text(json.dumps({"cells": [{"cell_type": "markdown", "id": "title", "source": "# 08", "metadata": {}}]}))
    with pytest.raises(ValueError, match="no section"):
        first_page("08")


def test_every_chapter_has_its_first_page_with_a_picture():
    for chapter in chapters():
        title, page = first_page(chapter)
        assert title.startswith(chapter) and any("On one page" in one for one in page if isinstance(one, str))
        pictures = [one for one in page if isinstance(one, Picture)]
        assert pictures or chapter == "24"  # its page is a table of what there is to type
        assert all(one.alt and one.png[1:4] == b"PNG" for one in pictures)


def test_every_card_has_its_proof():
    for name in index():
        assert proof(ask(name).evidence).heading, name
