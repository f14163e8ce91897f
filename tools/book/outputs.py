"""What a cell showed, as HTML: pictures with their words, text, and the course's own static HTML."""

import re
import shutil
import struct
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from parallel_lab.course.questions import SECTIONS

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_STYLE = re.compile(r"<style>.*?</style>\s*", re.DOTALL)
# Sections of a card that it has in Chinese as well: the reader's setting hides one of the two.
_TITLES = "|".join(title for title, language in SECTIONS.values() if not language)
_PAIRED = re.compile(rf"<details>(<summary>(?:{_TITLES})</summary>)")
_ASKED = re.compile(r'(<section class="plab)(" aria-label="(?:Interview question|Coding problem|Topic) (\w+)")')


class Outputs:
    """Writes the outputs of one page's cells; pictures go to a folder of the book."""

    def __init__(self, public: Path, book: Path, up: str, html: Callable[[str], str]) -> None:
        """What MyST put into `public` goes to the folder `book`, which the page reaches by `up`; `html` turns links."""
        self.public, self.book, self.up, self.html = public, book, up, html

    def write(self, output: Mapping[str, Any]) -> str:
        """The HTML of one output."""
        kind, data = output["output_type"], output.get("data") or {}
        if kind == "stream":
            return self._stream(output)
        if kind == "error":
            text = self._text(output.get("traceback", "")) or f"{output.get('ename')}: {output.get('evalue')}"
            return f'<pre class="output error">{escape(_COLORS.sub("", text))}</pre>'
        if "image/png" in data:
            alt = (output.get("metadata") or {}).get("alt") or self._content(data.get("text/plain"))
            return self.picture(data["image/png"].get("path", ""), alt)
        if "text/html" in data:
            return self._own(self._content(data["text/html"]))
        text = self._content(data.get("text/plain"))
        return f'<pre class="output">{escape(text)}</pre>' if text else ""

    def picture(self, path: str, alt: str) -> str:
        """A picture, taken along into the book, with its size so that nothing moves when it comes."""
        source = self.public / Path(path).name
        target = self.book / "pictures" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(source, target)
        size = ""
        if source.suffix == ".png":
            width, height = struct.unpack(">II", source.read_bytes()[16:24])
            size = f' width="{width}" height="{height}"'
        return f'<img src="{self.up}pictures/{source.name}" alt="{escape(alt.strip())}"{size} loading="lazy">'

    def _stream(self, output: Mapping[str, Any]) -> str:
        text = _COLORS.sub("", self._text(output))
        kind = " error" if output.get("name") == "stderr" else ""
        return f'<pre class="output{kind}">{escape(text)}</pre>' if text.strip() else ""

    def _own(self, text: str) -> str:
        """HTML of the course: the page has its style already, and links lead into the book.

        In a cell each is a landmark of its own; a chapter has dozens of them, so here they are groups.
        """
        text = _PAIRED.sub(r'<details class="en">\1', _STYLE.sub("", text))
        text = _ASKED.sub(r"\1 card\2", text)
        text = text.replace('<section class="plab', '<div role="group" class="plab').replace("</section>", "</div>")
        text = text.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
        return self.html(text)

    def _content(self, item: Mapping[str, Any] | None) -> str:
        """What MyST kept of one kind of an output; a large one stands in a file."""
        if not item:
            return ""
        if item.get("path"):
            return (self.public / Path(item["path"]).name).read_text(encoding="utf-8")
        return str(item.get("content", ""))

    def _text(self, output: Any) -> str:
        if isinstance(output, list):
            return "\n".join(output)
        if isinstance(output, str):
            return output
        if output.get("path"):
            return (self.public / Path(output["path"]).name).read_text(encoding="utf-8")
        text = output.get("text", "")
        return "".join(text) if isinstance(text, list) else str(text)
