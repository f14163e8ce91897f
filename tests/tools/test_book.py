"""The book's parts without a browser: where links lead, how words are cut, what MyST may not see, what becomes HTML."""

import re

import pytest

pytest.importorskip("griffe2md", reason="griffe2md is not installed: pip install 'parallel-lab[book]'")

from tools.book import reference
from tools.book.chapters import chapter_pages, first_of, first_pages, notebook_places
from tools.book.links import Links
from tools.book.mdast import Writer
from tools.book.outputs import Outputs
from tools.book.pages import BOOK, escaped
from tools.book.search import shelf, terms

CHAPTER = "notebooks/09_pipeline_parallel.ipynb"
PAGE = "chapters/09_pipeline_parallel"


@pytest.fixture
def links():
    return Links(notebook_places())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("#2-The-bubble", f"{PAGE}.html#2-The-bubble"),
        ("03_data_parallel.ipynb", "chapters/03_data_parallel.html"),
        ("03_data_parallel.ipynb#1-x", "chapters/03_data_parallel.html#1-x"),
        ("../exercises/02_collectives.ipynb#cell-id=ring", "exercises/02_collectives.html#ring"),
        ("../solutions/02_collectives.ipynb", "exercises/02_collectives.html"),
        ("../README.md", "index.html"),
        ("../parallel_lab/pipeline/gpipe.py", "source/parallel_lab/pipeline/gpipe.py.html"),
        ("book:cards/E5.html", "cards/E5.html"),
    ],
)
def test_a_link_of_the_repository_is_one_of_the_book(links, url, expected):
    assert links.turn(url, CHAPTER, PAGE) == BOOK + expected


@pytest.mark.parametrize(
    "url", ["https://example.org/x#y", "mailto:a@b.c", "nowhere.ipynb", "picture.png", "../../x.py"]
)
def test_what_leads_elsewhere_or_nowhere_stays(links, url):
    assert links.turn(url, CHAPTER, PAGE) == url


def test_code_is_a_page_of_the_book_or_a_file_of_a_repository_on_the_web(links):
    links.turn("../parallel_lab/pipeline/gpipe.py", CHAPTER, PAGE)
    assert links.wanted == {"parallel_lab/pipeline/gpipe.py"}
    away = Links(notebook_places(), "https://example.org/lab/blob/main/")
    found = away.turn("../parallel_lab/pipeline/gpipe.py", CHAPTER, PAGE)
    assert found == "https://example.org/lab/blob/main/parallel_lab/pipeline/gpipe.py"
    assert away.wanted == set()


def test_links_in_markdown_and_html_are_turned_and_the_rest_stays(links):
    assert links.markdown("see [3](#3-x), `a[0](b)`", CHAPTER, PAGE) == f"see [3]({BOOK}{PAGE}.html#3-x), `a[0](b)`"
    assert links.html('<a href="#x">y</a>', CHAPTER, PAGE) == f'<a href="{BOOK}{PAGE}.html#x">y</a>'


def test_dollars_and_at_signs_are_no_markup_of_myst():
    text = "3 $ and 4 $, `a $b$ @c`, me@x\n\n```python\n@cache\n```\n\n    $ plab"
    assert escaped(text) == "3 \\$ and 4 \\$, `a $b$ @c`, me\\@x\n\n```python\n@cache\n```\n\n    $ plab"


def test_words_are_cut_by_blanks_and_chinese_by_pairs():
    assert list(terms("Zero-bubble ZB_H1")) == ["zero", "bubble", "zb", "h1"]
    assert list(terms("流水线 x 显")) == ["流水", "水线", "x", "显"]
    assert shelf("bubble") == shelf("bus") and shelf("流水") == shelf("流程") != shelf("bubble")


def test_the_first_page_ends_before_the_next_section_and_has_its_pictures_without_code():
    def cell(kind, source, **output):
        return {"id": "x", "cell_type": kind, "source": source, "metadata": {}, "outputs": [{"data": output}]}

    cells = (
        cell("markdown", "# 09"),
        cell("markdown", "## On one page\ntable"),
        cell("code", "import torch"),
        cell("code", "draw()", **{"image/png": "x"}),
        cell("markdown", "## 1 What"),
        cell("code", "draw()", **{"image/png": "x"}),
    )
    found = first_of(cells)
    assert [one["source"] for one in found] == ["## On one page\ntable", "draw()"]
    assert found[1]["metadata"]["tags"] == ["remove-input"]
    assert first_of(cells[:1]) == ()


def test_each_first_page_has_its_chinese_text_behind_the_english_one():
    *pages, _ = first_pages([page for page in chapter_pages() if page.kind == "chapter"])
    assert len(pages) == 25
    for page in pages:
        worded = [cell["source"] for cell in page.cells if cell["cell_type"] == "markdown"]
        both = [re.findall(r"^:class: (\w+)$", text, re.MULTILINE) for text in worded]
        assert both[-1] == ["en", "zh"] and "## 一页纸" in "".join(worded)
        assert any(cell["cell_type"] == "code" for cell in page.cells) or page.chapter == "24", "a picture"


@pytest.fixture
def writer(tmp_path):
    return Writer(Outputs(tmp_path, tmp_path, "", str))


def text(value, kind="text"):
    return {"type": kind, "value": value}


def test_text_is_escaped_and_a_formula_is_mathml(writer):
    math = {"type": "inlineMath", "value": "x<y", "html": '<span><math><mi>x</mi></math></span><span class="k"></span>'}
    node = {"type": "paragraph", "children": [text("a < b & c"), text("<b>", "html"), math]}
    assert writer.write(node) == "<p>a &lt; b &amp; c&lt;b&gt;<math><mi>x</mi></math></p>"


def test_headings_have_the_ids_of_jupyterlab_and_know_their_language(writer):
    heading = {"type": "heading", "depth": 1, "children": [text("The server’s link")]}
    assert '<h2 id="The-server&#x27;s-link">' in writer.write({"type": "div", "class": "zh", "children": [heading]})
    assert [(one.depth, one.name, one.language) for one in writer.headings] == [(2, "The-server's-link", "zh")]
    assert 'id="' not in writer.write(heading), "an id stands once on a page"
    assert [said for _, _, said in writer.said] == [[], [], []], "a heading's words are not those of the part before it"


def test_a_table_has_a_head_and_a_folded_output_opens(writer):
    def row(*cells, header=False):
        return {
            "children": [{"type": "tableCell", "header": header, "children": [text(c)]} for c in cells],
            "type": "tableRow",
        }

    table = writer.write({"type": "table", "children": [row("a", header=True), row("1")]})
    assert '<thead><tr><th scope="col">a</th></tr></thead><tbody><tr><td>1</td></tr></tbody>' in table
    stream = {"output_type": "stream", "name": "stdout", "text": "\x1b[31mred\x1b[0m <x>"}
    shown = {"type": "outputs", "visibility": "hide", "children": [{"type": "output", "jupyter_data": stream}]}
    assert writer.write(shown).startswith('<details class="folded"><summary>')
    assert "red &lt;x&gt;" in writer.write(shown)


def test_cards_of_a_chapter_are_groups_and_their_english_sections_are_marked(writer):
    card = '<style>x</style><section class="plab" aria-label="Topic C7" lang="en"><details><summary>30-second answer'
    kept = "</summary></details><details><summary>A weak answer</summary></details></section>"
    data = {"text/html": {"content": card + kept}}
    shown = writer.outputs.write({"output_type": "execute_result", "data": data})
    assert shown.startswith('<div role="group" class="plab card" aria-label="Topic C7" lang="en"><details class="en">')
    assert '<details class="en"><summary>A weak' in shown and "style" not in shown and "section" not in shown


def test_the_reference_has_every_room_and_links_what_it_knows():
    paths = [room.path for room in reference.rooms()]
    assert {"parallel_lab", "parallel_lab.pipeline", "parallel_lab.systems.storage"} <= set(paths)
    where = {"parallel_lab.plan.op.Plan": "reference/parallel_lab.plan"}
    said = reference._types("[list](#list)[[Plan](#parallel_lab.plan.op.Plan)]", where)
    assert said == r"`list`\[[`Plan`](book:reference/parallel_lab.plan.html#parallel_lab.plan.op.Plan)\]"
