"""The web book: built once, then every link, the weight of each page, and what a reader does with it in a browser."""

import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'parallel-lab[browser]'")
pytest.importorskip("griffe2md", reason="griffe2md is not installed: pip install 'parallel-lab[book]'")
pytest.importorskip("axe_playwright_python", reason="axe is not installed: pip install 'parallel-lab[browser]'")

from axe_playwright_python.sync_playwright import Axe
from lab_page import CHROMIUM, FLAGS
from playwright.sync_api import Browser, Page, expect, sync_playwright

from parallel_lab.course.chapters import TITLES
from parallel_lab.course.questions import card, index
from tools.book.__main__ import build
from tools.book.search import terms

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(600),
]
MOST_BYTES = 1_000_000
# One page of each kind.
KINDS = {
    "start": "index.html",
    "chapter": "chapters/20_energy.html",
    "first page": "first/09_pipeline_parallel.html",
    "list of cards": "cards/index.html",
    "card": "cards/E5.html",
    "exercise": "exercises/09_pipeline_parallel.html",
    "reference": "reference/parallel_lab.plan.html",
    "code": "source/parallel_lab/pipeline/gpipe.py.html",
    "claims": "claims.html",
    "glossary": "glossary.html",
    "search": "search.html?q=bubble",
}
_TAG = re.compile(r"<(a|img|script|link|form)\s([^>]*)>")
_LINK = re.compile(r'\b(?:href|src|action)="([^"]*)"')
_ID = re.compile(r'<[^<>]*\sid="([^"]*)"')
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the book, built from the repository as it is; MyST warns of nothing."""
    folder = tmp_path_factory.mktemp("book")
    assert build(folder) == []
    return folder / "html"


@pytest.fixture(scope="module")
def browser():
    """A chromium for all tests of this file."""
    with sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def reader(browser: Browser):
    """A fresh reader's page, in English and light; he asks no host for anything."""
    context = browser.new_context(locale="en-US", color_scheme="light")
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert wrong == []


def at(book: Path, address: str) -> str:
    """The address of a page, as one opens it from the folder."""
    return (book / "index.html").as_uri().replace("index.html", address)


@cache
def ids(page: Path) -> set[str]:
    """The anchors of a page."""
    return {unescape(name) for name in _ID.findall(page.read_text(encoding="utf-8"))}


def links(page: Path) -> list[tuple[str, str]]:
    """The tag and the address of each link of a page."""
    tags = _TAG.findall(page.read_text(encoding="utf-8"))
    return [(tag, unescape(url)) for tag, inside in tags for url in _LINK.findall(inside)]


def missing(page: Path, url: str) -> str:
    """What is wrong with a link inside the book, or nothing."""
    file, _, anchor = url.partition("#")
    target = (page.parent / unquote(file.partition("?")[0])).resolve() if file else page
    if not target.is_file():
        return "no such file"
    return "no such anchor" if anchor and target.suffix == ".html" and unquote(anchor) not in ids(target) else ""


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(book):
    wrong = []
    for page in book.rglob("*.html"):
        for tag, url in links(page):
            name = page.relative_to(book)
            if not _SCHEME.match(url):
                wrong += [f"{name}: {url}: {said}"] if (said := missing(page, url)) else []
            elif tag != "a" and not url.startswith("data:"):
                wrong.append(f"{name}: {url} is fetched from elsewhere")
            elif tag == "a" and not url.startswith(("https://", "http://")):
                wrong.append(f"{name}: {url}: no link for a reader")
    assert wrong == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<p id="here">x</p><a href="#here">1</a><a href="#there">2</a><a href="other.html">3</a>')
    assert [missing(page, url) for _, url in links(page)] == ["", "no such anchor", "no such file"]


def test_all_there_is_has_a_page_and_no_solution_is_in_the_book(book):
    chapters = {file.name[:2] for file in (book / "chapters").iterdir()}
    assert chapters >= {number for number in TITLES if int(number) < 24}
    cards = {question.id for question in index().values()}
    assert {file.stem for file in (book / "cards").iterdir()} == cards | {"index"}
    for name in cards:
        text = (book / "cards" / f"{name}.html").read_text(encoding="utf-8")
        assert text.count('<div class="zh" lang="zh">') >= 4, f"{name} is not in both languages"
    exercises = [file.read_text(encoding="utf-8") for file in (book / "exercises").glob("[0-9]*.html")]
    assert len(exercises) == len(list(Path("exercises").glob("[0-9]*.ipynb")))
    assert not any("BEGIN SOLUTION" in text for text in exercises)
    assert not (book / "source" / "solutions").exists()


def test_every_card_is_one_click_from_the_cell_that_shows_it(book):
    for question in index().values():
        _, _, cell = card(question).evidence.partition("#")
        text = (book / "cards" / f"{question.id}.html").read_text(encoding="utf-8")
        assert re.search(rf'href="\.\./chapters/\d\d_\w+\.html#{re.escape(cell)}"', text), question.id


def test_every_formula_became_one_and_every_picture_has_words(book):
    for page in book.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "merror" not in text and "katex-error" not in text, page.name
        assert "book.invalid" not in text and "book:" not in "".join(url for _, url in links(page)), page.name
        for picture in re.findall(r"<img [^>]*>", text):
            assert len(re.search(r'alt="([^"]*)"', picture)[1]) > 10, f"{page.name}: {picture[:120]}"


def test_every_page_loads_under_one_megabyte(book):
    """Page, style, scripts and pictures together, those that are loaded on scrolling as well."""
    heavy = []
    for page in book.rglob("*.html"):
        own = [url for tag, url in links(page) if tag in ("img", "script", "link") and not url.startswith("data:")]
        parts = {(page.parent / url).resolve() for url in own}
        size = page.stat().st_size + sum(part.stat().st_size for part in parts if part.is_file())
        heavy += [f"{page.relative_to(book)}: {size:,} bytes"] if size > MOST_BYTES else []
    assert heavy == []


@pytest.mark.parametrize("query", ["bubble", "all-reduce bytes ring", "流水线并行", "p"])
def test_a_search_loads_under_one_megabyte(book, reader, query):
    """The index is cut into files, of which a search loads those of its words."""
    loaded = []
    reader.on("requestfinished", lambda request: loaded.append(request.url.partition("?")[0]))
    reader.goto(at(book, f"search.html?q={query}"))
    expect(reader.locator("#results li").first).to_be_visible()
    files = [Path(unquote(url.removeprefix("file://"))) for url in set(loaded) if url.startswith("file:")]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_serious_finding_of_axe(book, browser, kind, theme):
    context = browser.new_context(locale="en-US", color_scheme=theme)
    page = context.new_page()
    page.goto(at(book, KINDS[kind]))
    if kind == "search":
        expect(page.locator("#results li").first).to_be_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    found = serious(page)
    context.close()
    assert found == []


def test_axe_finds_what_is_wrong(browser):
    page = browser.new_page()
    page.set_content('<html lang="en"><title>x</title><main><img src="data:,"><p style="color:#ccc">pale</p></main>')
    found = serious(page)
    page.close()
    assert {line.partition(":")[0] for line in found} == {"image-alt", "color-contrast"}


def serious(page: Page) -> list[str]:
    """The serious and critical findings of axe."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    kept = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {len(one['nodes'])} times, {one['nodes'][0]['html'][:200]}" for one in kept]


def test_the_search_finds_in_both_languages_and_leads_there(book, reader):
    reader.goto(at(book, "index.html"))
    reader.keyboard.press("/")
    expect(reader.locator("#q")).to_be_focused()
    reader.keyboard.type("zero bubble")
    reader.keyboard.press("Enter")
    expect(reader.locator("#said")).to_contain_text("places")
    expect(reader.locator("#results")).to_contain_text("09 · Pipeline parallelism")
    reader.locator("#results a", has_text="bubble").first.click()
    expect(reader.locator("h1")).to_be_visible()
    assert "#" in reader.url

    reader.goto(at(book, "search.html?q=气泡"))
    expect(reader.locator("#results mark").first).to_have_text("气泡")
    reader.locator("#results a").first.click()
    expect(reader.locator("main div.zh", has_text="气泡").first).to_be_visible()

    reader.goto(at(book, "search.html?q=xyzzyxyzzy"))
    expect(reader.locator("#said")).to_contain_text("Nothing found")


def test_page_and_index_cut_words_in_the_same_way(book, reader):
    reader.goto(at(book, "search.html"))
    for text in ("All-reduce of 2(n-1)/n bytes", "流水线并行 bubble 气泡", "显", "zb_h1 und F1B"):
        assert reader.evaluate("text => words(text)", text) == list(dict.fromkeys(terms(text)))


def test_the_language_switch_hides_one_language_and_is_kept(book, reader):
    english = reader.locator("main div.en", has_text="30-second answer").first
    chinese = reader.locator("main div.zh", has_text="30 秒回答").first
    reader.goto(at(book, "cards/E5.html"))
    expect(english).to_be_visible()
    expect(chinese).to_be_hidden()
    reader.get_by_role("button", name="中文", exact=True).click()
    expect(english).to_be_hidden()
    expect(chinese).to_be_visible()
    expect(reader.locator("h1")).to_contain_text("模型并行")
    reader.goto(at(book, "cards/A5.html"))
    expect(chinese).to_be_visible()
    expect(reader.locator("#navigation")).to_contain_text("流水线并行")
    reader.get_by_role("button", name="EN + 中文").click()
    expect(english).to_be_visible()
    expect(chinese).to_be_visible()


def test_cards_inside_a_chapter_follow_the_switch(book, reader):
    reader.goto(at(book, "chapters/09_pipeline_parallel.html#a5-card"))
    shown = reader.locator("#a5-card .card")
    expect(shown.locator("summary", has_text="30-second answer")).to_be_visible()
    expect(shown.locator("summary", has_text="30 秒回答")).to_be_hidden()
    reader.get_by_role("button", name="中文", exact=True).click()
    expect(shown.locator("summary", has_text="30-second answer")).to_be_hidden()
    expect(shown.locator("summary", has_text="30 秒回答")).to_be_visible()
    expect(shown.locator("summary", has_text="A strong answer")).to_be_hidden()
    expect(shown.locator("summary", has_text="较强的回答")).to_be_visible()


def test_a_browser_in_chinese_and_in_the_dark_is_answered_so(book, browser):
    context = browser.new_context(locale="zh-CN", color_scheme="dark")
    page = context.new_page()
    page.goto(at(book, "index.html"))
    expect(page.locator("main")).to_contain_text("这是课程的网页版")
    expect(page.locator("main div.zh").first).to_be_visible()
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="浅色或深色").click()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != paper
    page.goto(at(book, "glossary.html"))
    assert page.evaluate("document.documentElement.dataset.theme") == "light", "the theme is not kept"
    context.close()


def test_a_reader_with_a_keyboard_skips_to_the_text(book, reader):
    reader.goto(at(book, "chapters/20_energy.html"))
    reader.keyboard.press("Tab")
    expect(reader.locator(".skip")).to_be_focused()
    reader.keyboard.press("Enter")
    expect(reader.locator("main")).to_be_focused()


def test_on_a_narrow_window_the_menu_opens_and_nothing_runs_out_of_the_page(book, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844}, locale="en-US")
    for address in (*KINDS.values(), "chapters/04_gradient_synchronization.html"):
        page.goto(at(book, address))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    page.goto(at(book, "cards/E5.html"))
    expect(page.locator("#navigation")).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    expect(page.locator("#navigation")).to_be_visible()
    page.close()
