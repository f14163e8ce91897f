"""Cleaning of text: what a crawl adds to a document is taken out, and what it broke is mended.

The steps and their order, which matters:

1. entities: `&eacute;` becomes é. First, because an entity may hide half of a broken character.
2. mojibake: UTF-8 that was read as Windows-1252 or Latin-1 (`cafÃ©`) is read again as UTF-8.
3. control characters go, all but newline and tab; so do the byte-order mark and other characters without a shape.
4. whitespace: line ends become newlines, runs of blanks become one, more than one empty line becomes one.
5. NFC: a letter and its accent become one character, so that equal texts have equal bytes (Unicode Annex 15).

Indented text, such as code, keeps its indent only with `indents=True`. What is cleaned must be cleaned the same way
when the model is used: a model that never saw a tab does not know one.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# What Windows-1252 shows for a byte; the five bytes that it leaves undefined stay what they are in Latin-1.
_CHARACTERS = [bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in range(256)]
_BYTE = {character: byte for byte, character in enumerate(_CHARACTERS)} | {chr(byte): byte for byte in range(0x80, 256)}
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SHAPELESS = dict.fromkeys(
    [*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC)]
)


def _class(first: int, last: int) -> str:
    shown = {character for character, byte in _BYTE.items() if first <= byte <= last}
    return "[" + "".join(re.escape(character) for character in sorted(shown)) + "]"


# The forms of a UTF-8 character of 2, 3 and 4 bytes, as its bytes look in Windows-1252.
_NEXT = _class(0x80, 0xBF)
_BROKEN = re.compile(
    f"(?:{_class(0xC2, 0xDF)}{_NEXT}|{_class(0xE0, 0xEF)}{_NEXT}{{2}}|{_class(0xF0, 0xF4)}{_NEXT}{{3}})+"
)


def clean(text: str, indents: bool = False) -> str:
    """`text` through all steps."""
    text = drop_controls(repair_mojibake(unescape(text)))
    return unicodedata.normalize("NFC", squeeze(text, indents))


def unescape(text: str) -> str:
    """`text` with its HTML entities as characters; one that lacks its semicolon stays, as in `?a=1&copy=2`."""
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text)


def repair_mojibake(text: str) -> str:
    """`text` with each run of characters that is UTF-8 in disguise as what it was; text broken twice needs two rounds.

    Only the runs are touched, so a line may be half broken. A wrong repair needs a text that means a letter such as Ã
    and a sign such as © right behind it; ftfy (Speer 2019) weighs how likely that is, this function does not.
    """
    for _ in range(3):
        mended = _BROKEN.sub(_decoded, text)
        if mended == text:
            break
        text = mended
    return text


def _decoded(found: re.Match) -> str:
    try:
        return bytes(_BYTE[character] for character in found[0]).decode()
    except UnicodeDecodeError:  # as an overlong form, which is no character
        return found[0]


def drop_controls(text: str) -> str:
    """`text` without control characters, but with its newlines (of any system) and tabs."""
    return text.translate(_SHAPELESS)


def squeeze(text: str, indents: bool = False) -> str:
    """`text` with one blank between words and at most one empty line; with `indents` a line keeps its first blanks."""
    lines = re.sub(r"\r\n?|[\f\x85\u2028\u2029]", "\n", text).split("\n")
    squeezed = []
    for line in lines:
        indent = re.match(r"[ \t]*", line)[0] if indents else ""  # pyright: ignore[reportOptionalSubscript]
        words = line.split()
        squeezed.append(indent + " ".join(words) if words else "")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(squeezed)).strip("\n")


def line_counts(documents: Iterable[str]) -> Counter[str]:
    """In how many documents each line stands; the counts of several ranks add up."""
    counts: Counter[str] = Counter()
    for text in documents:
        counts.update({line.strip() for line in text.split("\n")} - {""})
    return counts


def drop_boilerplate(text: str, counts: Counter[str], most: int) -> str:
    """`text` without the lines that more than `most` documents have: menus, footers, notices of cookies.

    Args:
        text: a document.
        counts: of all documents, of all ranks, see `line_counts`.
        most: a line in more documents than this is no one's own.
    """
    return "\n".join(line for line in text.split("\n") if counts[line.strip()] <= most)
