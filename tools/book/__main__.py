"""Builds the web book: `make book`, or `python -m tools.book --repository https://host/owner/name/blob/main`.

The executed notebooks, the cards, the exercises without solutions, the docstrings and some Markdown files become
sources of MyST (Jupyter Book 2) in build/book/source. MyST reads and resolves them; its trees become static pages in
build/book/html. The book needs no server and no network: opened from the folder it is complete.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from tools.book import cards, chapters, myst, reference, search, site
from tools.book.links import Links
from tools.book.mdast import Writer
from tools.book.outputs import Outputs
from tools.book.pages import ROOT, Page

ADDRESS = "PARALLEL_LAB_REPOSITORY"
FOLDER = ROOT / "build" / "book"


def collect(links: Links) -> list[Page]:
    """All pages that MyST reads, in the book's order."""
    from_notebooks = list(chapters.chapter_pages())
    written, exercises = ([page for page in from_notebooks if page.kind == kind] for kind in ("chapter", "exercise"))
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
        chapters.exercise_list(exercises),
        *exercises,
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
        outputs = Outputs(
            myst.public(source), book, up, lambda text, page=page: links.html(text, page.origin, page.path)
        )
        writer = Writer(outputs)
        frame.write(page, writer.inside(tree), writer.headings)
        for name, heading, said in writer.said:
            index.add(page, name, heading, "".join(said))
    index.write(book / "search")
    frame.write(*site.search_page())
    for path in sorted(links.wanted):
        frame.write(*site.source_page(path))


def build(folder: Path, repository: str = "") -> list[str]:
    """Builds the book in `folder`, MyST's sources in `source` and the pages in `html`; returns what MyST warns of.

    Args:
        folder: is made where it is missing; what an earlier build left in it is replaced.
        repository: the address before a file's path in a repository on the web; empty for code as pages of the book.

    Raises:
        Failed: MyST did not build.
    """
    links = Links(chapters.notebook_places(), repository)
    pages = collect(links)
    myst.write_sources(pages, links, folder / "source")
    print(f"{len(pages)} pages are written as sources; MyST reads them", flush=True)
    warned = myst.build(folder / "source")
    shutil.rmtree(folder / "html", ignore_errors=True)
    write_pages(pages, links, folder / "html", folder / "source")
    return warned


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make book", description="Build the web book in build/book/html.")
    example = (
        "the address before a file's path, such as https://host/owner/name/blob/main; without it, code is in the book"
    )
    parser.add_argument("--repository", default=os.environ.get(ADDRESS, ""), help=f"{example} (also {ADDRESS})")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to build (build/book)")
    chosen = parser.parse_args()
    began_s = time.monotonic()
    try:
        warned = build(chosen.folder, chosen.repository)
    except myst.Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the book is not complete", file=sys.stderr)
        return 130
    print("".join(f"{line}\n" for line in warned), end="")
    book = chosen.folder / "html"
    print(f"{len(list(book.rglob('*.html')))} pages in {time.monotonic() - began_s:.0f} s; open {book / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
