"""Builds the web book: `make book`, or `python -m tools.book --repository https://host/owner/name/blob/main`.

The executed notebooks, the cards, the exercises without solutions, the docstrings and some Markdown files become sources
of MyST (Jupyter Book 2) in build/book/source. MyST reads and resolves them; its trees become static pages in
build/book/html. The book needs no server and no network: opened from the folder it is complete.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from tools.book import cards, chapters, myst, reference, search, site
from tools.book.links import Links
from tools.book.mdast import Writer
from tools.book.outputs import Outputs
from tools.book.pages import ROOT, Page

FOLDER = ROOT / "build" / "book"


def collect(links: Links) -> list[Page]:
    """All pages that MyST reads, in the book's order."""
    from_notebooks = list(chapters.chapter_pages())
    written = [page for page in from_notebooks if page.kind == "chapter"]
    files = list(chapters.file_pages())
    first = list(chapters.first_pages(written))
    where = {page.chapter: page.path for page in written}
    rooms = reference.reference_pages(lambda path: links.place(path))
    return [
        files[0],
        *written,
        first[-1],
        *first[:-1],
        cards.card_list(),
        *cards.card_pages(where),
        *(page for page in from_notebooks if page.kind == "exercise"),
        *rooms,
        *cards.terms(),
        *files[1:],
    ]


def write_pages(pages: list[Page], links: Links, book: Path, source: Path) -> None:
    """Writes the pages from MyST's trees, then those of the code that they link, and the index of the search."""
    site.write_assets(book)
    known, frame, index = {page.path: page for page in pages}, site.Frame(book, pages), search.Index()
    for path, tree in myst.trees(source):
        page = known[path]
        up = "../" * path.count("/")
        outputs = Outputs(myst.public(source), book, up, lambda text, page=page: links.html(text, page.origin, page.path))
        writer = Writer(str, outputs)
        frame.write(page, writer.inside(tree), writer.headings)
        for name, heading, said in writer.said:
            index.add(page, name, heading, "".join(said))
    index.write(book / "search")
    frame.write(*site.search_page())
    for path in sorted(links.wanted):
        frame.write(*site.source_page(path))


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make book", description="Build the web book in build/book/html.")
    parser.add_argument("--repository", default="", help="the address before a file's path, such as https://host/owner/name/blob/main")
    parser.add_argument("--warnings", action="store_true", help="print what MyST warns of")
    chosen = parser.parse_args()
    began_s, source, book = time.monotonic(), FOLDER / "source", FOLDER / "html"
    links = Links(chapters.notebook_places(), chosen.repository)
    pages = collect(links)
    myst.write_sources(pages, links, source)
    print(f"{len(pages)} pages for MyST after {time.monotonic() - began_s:.0f} s", flush=True)
    try:
        warned = myst.build(source)
    except myst.Failed as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.warnings:
        print("\n".join(warned))
    shutil.rmtree(book, ignore_errors=True)
    write_pages(pages, links, book, source)
    print(f"{book / 'index.html'}: {len(list(book.rglob('*.html')))} pages in {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
