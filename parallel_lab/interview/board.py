"""What the whiteboard answers: parts of a page, whether it went well, and the trace where there is one."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from parallel_lab.course import page
from parallel_lab.interview.words import lang, say
from parallel_lab.trace import Trace


@dataclass(frozen=True, repr=False)
class Answer(page.Shown):
    """The answer to what was written on the board.

    Attributes:
        kind: What was read: `schedule`, `layout` or `code`.
        passed: Whether a schedule can be carried out, a layout fits, code ran to its end.
        parts: What is said and shown.
        trace: Simulated, or recorded from real ranks; None where nothing ran.
        language: `en` or `zh`.
    """

    kind: str
    passed: bool
    parts: Sequence[page.Part]
    trace: Trace | None = None
    language: str = "en"

    def as_page(self) -> page.Page:
        """The verdict, then all parts."""
        word = say(f"whiteboard.{self.kind}-{'passed' if self.passed else 'failed'}", self.language)
        shown = page.verdict(self.passed, word, lang=lang(self.language))
        return shown._replace(parts=[*shown.parts, *self.parts])


def sentence(key: str, language: str, **values: Any) -> page.Part:
    """A paragraph with the text `key`."""
    return page.paragraph(say(key, language, **values), lang=lang(language))


def block(text: str) -> page.Part:
    """Text as it stands, in columns."""
    return page.Part(f"<pre>{escape(text)}</pre>", text)


def picture(drawing: Any, text: str | None = None) -> page.Part:
    """A drawing inside the page; in a terminal `text`, by default its numbers."""
    shown = drawing.text if text is None else text
    return page.Part(picture_html(b64encode(drawing.png).decode(), drawing.alt), shown)


def picture_html(png: str, alt: str) -> str:
    """A picture inside a page; `png` in base64."""
    return f'<img src="data:image/png;base64,{"".join(png.split())}" alt="{escape(alt)}" style="max-width: 100%">'
