"""What the book itself says, in English and in Chinese; `book/words.yaml` has it."""

from functools import cache

import yaml

from tools.book.pages import ROOT

FILE = ROOT / "book" / "words.yaml"


@cache
def words() -> dict[str, dict[str, str]]:
    """All words by their key, each with its two languages."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def word(key: str, language: str) -> str:
    """One word in one language, `en` or `zh`."""
    return words()[key][language]


def both(key: str) -> str:
    """One word in both languages; the reader's setting hides one of them."""
    return spans(word(key, "en"), word(key, "zh"))


def spans(english: str, chinese: str) -> str:
    """HTML of two wordings, of which the reader's setting hides one; plain where there is no Chinese one."""
    if not chinese:
        return english
    return f'<span class="en">{english}</span><span class="zh" lang="zh">{chinese}</span>'
