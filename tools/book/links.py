"""Where a link of the repository leads in the book.

Notebooks and Markdown files link as JupyterLab and a web viewer of the repository read them, from file to file. In the
book a file that has a page is that page, code is its page under `source/` or its place in a repository on the web, and
an anchor stays as it is: the book's headings carry the ids that JupyterLab gives.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from posixpath import dirname, join, normpath
from urllib.parse import unquote

from tools.book.pages import BOOK, ROOT

_MARKDOWN = re.compile(r"(\]\()<?([^)\s>]+)>?(\))")
_HTML = re.compile(r'((?:href|src)=")([^"]+)(")')
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
CODE = (
    ".py",
    ".pyi",
    ".js",
    ".css",
    ".csv",
    ".yaml",
    ".yml",
    ".toml",
    ".lock",
    ".sh",
    ".md",
    "LICENSE",
    "Makefile",
    "run",
)


@dataclass
class Links:
    """Turns links of the repository into those of the book.

    Attributes:
        places: the page of each file of the repository that has one, by the file's path.
        repository: the address before a file's path in a repository on the web; empty for pages in the book itself.
        wanted: the files that are linked and need a page of their own, filled while links are turned.
    """

    places: Mapping[str, str]
    repository: str = ""
    wanted: set[str] = field(default_factory=set)

    def turn(self, url: str, origin: str, page: str) -> str:
        """The link `url`, written in the file `origin` and read on `page`; what leads nowhere stays as it is."""
        if url.startswith("#"):
            return f"{BOOK}{page}.html{url}"
        if url.startswith("book:"):
            return BOOK + url.removeprefix("book:")
        if _ELSEWHERE.match(url) or url.endswith(".png"):  # MyST takes pictures along
            return url
        target, _, anchor = url.partition("#")
        anchor = anchor.removeprefix("cell-id=")  # JupyterLab's link to a cell
        path = normpath(join(dirname(origin), unquote(target)))
        found = self.place(path) or self.place(normpath(target))
        return f"{found}{'#' if anchor else ''}{anchor}" if found else url

    def place(self, path: str) -> str:
        """The address of a file of the repository, or nothing where there is no such file."""
        if path in self.places:
            return f"{BOOK}{self.places[path]}.html"
        file = ROOT / path
        if path.startswith("..") or not file.exists():
            return ""
        if self.repository:
            return f"{self.repository.rstrip('/')}/{path}"
        if file.is_file() and path.endswith(CODE):
            self.wanted.add(path)
            return f"{BOOK}source/{path}.html"
        return f"{BOOK}{self.places.get('README.md', 'index')}.html"

    def markdown(self, text: str, origin: str, page: str) -> str:
        """Markdown with its links turned; pictures stay, for MyST takes them along."""
        return _MARKDOWN.sub(lambda found: found[1] + self.turn(found[2], origin, page) + found[3], text)

    def html(self, text: str, origin: str, page: str) -> str:
        """HTML with its links turned."""
        return _HTML.sub(lambda found: found[1] + self.turn(found[2], origin, page) + found[3], text)
