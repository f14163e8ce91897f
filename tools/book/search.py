"""The index of the search: what stands under which heading, in small files that a page loads as it needs them.

Words are cut in two ways. Letters and digits make a word; of Chinese characters each pair makes one, since Chinese has
no blanks. Files are named after a word's beginning, so that a search loads some of them and not the whole index. They
are scripts and no JSON: a browser loads scripts from a folder on disk too.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.book.pages import Page

_WORD = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]+")
DOCUMENTS, CHINESE, KEPT = 25, 64, 1500  # documents a file; files for Chinese pairs; characters that are kept to show
MOST, IN_TITLE = 4, 8  # how often a word counts in a text, and what it counts in a heading
# Words that every text has: they are not in the index, and a search looks past them.
_STOP = """a an and are as at be by for from has have in is it its no not of on or so than that the their there these
they this to was what where which who with"""
STOP = frozenset(_STOP.split())
KIND = {"chapter": 3, "first": 3, "card": 4, "exercise": 2, "more": 2, "start": 2, "reference": 1}


@dataclass
class Index:
    """Collects documents, each what stands under one heading, and writes the files."""

    documents: list[tuple[str, str, str, str, str]] = field(default_factory=list)  # address, page, 中文, heading, text
    postings: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, page: Page, name: str, heading: str, text: str) -> None:
        """Adds what stands under the heading with the id `name`, or before the first one."""
        text = " ".join(text.split())
        counts = Counter({word: min(count, MOST) for word, count in Counter(terms(text)).items()})
        counts.update(
            dict.fromkeys(terms(heading), IN_TITLE) | dict.fromkeys(terms(f"{page.title} {page.zh}"), IN_TITLE // 2)
        )
        for word, count in counts.items():
            if word not in STOP:
                self.postings[word].append((len(self.documents), count * KIND.get(page.kind, 1)))
        address = f"{page.address}{'#' if name else ''}{name}"
        self.documents.append((address, page.title, page.zh, heading, text[:KEPT]))

    def write(self, folder: Path) -> None:
        """Writes the files."""
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(self.documents), DOCUMENTS):
            number = start // DOCUMENTS
            _script(folder / f"d-{number}.js", f"d-{number}", self.documents[start : start + DOCUMENTS])
        shelves: dict[str, dict[str, Sequence[int]]] = defaultdict(dict)
        for word, found in self.postings.items():
            shelves[shelf(word)][word] = [number for pair in found for number in pair]
        for name, words in shelves.items():
            _script(folder / f"{name}.js", name, words)
        _script(folder / "all.js", "all", {"files": sorted(shelves), "stop": sorted(STOP)})


def terms(text: str) -> Iterator[str]:
    """The words of a text, as the index has them; `search.js` cuts in the same way."""
    for piece in _WORD.findall(text.lower()):
        if piece.isascii():
            yield piece[:24]
        else:
            yield from (piece[at : at + 2] for at in range(max(1, len(piece) - 1)))


def shelf(word: str) -> str:
    """The file that has a word."""
    return f"w-{word[:2]}" if word.isascii() else f"z-{ord(word[0]) % CHINESE}"


def _script(file: Path, name: str, content: object) -> None:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    file.write_text(f'book.take("{name}",{text});\n', encoding="utf-8")
