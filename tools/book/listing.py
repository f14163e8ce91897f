"""Files of the repository as pages: the text, highlighted, with an anchor a line."""

from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

MARKED = HtmlFormatter(nowrap=True)
PLAIN_BYTES = 60_000  # from this size on without colors, so that a page stays light


def listing(file: Path) -> str:
    """The HTML of a file."""
    text = file.read_text(encoding="utf-8")
    try:
        lexer = get_lexer_for_filename(file.name) if len(text) < PLAIN_BYTES else TextLexer()
    except ClassNotFound:
        lexer = TextLexer()
    marked = highlight(text, lexer, MARKED).splitlines()
    lines = "\n".join(f'<span id="L{number}">{line}</span>' for number, line in enumerate(marked, 1))
    return f'<pre class="code listing"><code>{lines}</code></pre>'
