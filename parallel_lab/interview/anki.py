r"""Decks for Anki: cards, atoms and terms in both languages, with formulas, pictures and ids that stay.

A note's id is made from the course's id (`genanki.guid_for("parallel-lab:E5")`), the ids of decks and of the kinds of
notes are constants. So Anki takes a later deck for new words on old notes, and the learner's history stays. A note
gives one card a language: it asks in that language, and has the other one folded on its back.
"""

import csv
import hashlib
import io
import json
import os
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from html import escape
from importlib.resources import files
from itertools import count
from pathlib import Path

import genanki

from parallel_lab.course import progress
from parallel_lab.course.chapters import TITLES
from parallel_lab.interview.notes import BOTH, CHOICES, Note, notes
from parallel_lab.interview.stored import Picture
from parallel_lab.interview.words import LANGUAGES, say

PREFIX = "parallel-lab:"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the files in the package: one deck is the same file at any time
_FIELDS = ("Id", "Ask", "Answer", "More", "Proof", "AskZh", "AnswerZh", "MoreZh", "ProofZh", "Picture")
_MODELS = {"Cards": 1_732_801_501, "Atoms": 1_732_801_502, "Terms": 1_732_801_503}


def guid(name: str) -> str:
    """The id of the note of card, atom or term `name` in every deck that the course writes."""
    return genanki.guid_for(PREFIX + name)


def write_deck(
    file: str | Path,
    *,
    chapter: str | None = None,
    language: str = BOTH,
    with_atoms: bool = True,
    timestamp: float | None = None,
) -> int:
    """Writes the deck to `file`, an Anki package, and replaces what is there once it is whole.

    Args:
        file: where to, as `parallel-lab.apkg`.
        chapter: of one chapter only, as `"09"`.
        language: `both`, `en` or `zh`.
        with_atoms: decks of atoms and of terms as well, beside those of whole cards.
        timestamp: seconds since 1970, now if not given; Anki takes the words of the deck with the later one.

    Returns:
        How many notes it has.

    Raises:
        ValueError: there is no such language.
        UnknownName: no question is answered in this chapter.
    """
    chosen = _chosen(chapter, language, with_atoms)
    media = {_name(note.picture): note.picture.png for note in chosen if note.picture}
    decks = _decks(chosen, language)
    progress.replace(Path(file), _package(decks, media, progress.now().timestamp() if timestamp is None else timestamp))
    return len(chosen)


def write_table(file: str | Path, *, chapter: str | None = None, language: str = BOTH, with_atoms: bool = True) -> int:
    """Writes the notes to `file` as comma-separated values with a line of heads, questions and answers as Markdown.

    The arguments and what is raised are those of `write_deck`; spreadsheets see by its first bytes that it is UTF-8.
    """
    chosen, out = _chosen(chapter, language, with_atoms), io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    languages = LANGUAGES if language == BOTH else (language,)
    rows.writerow(["id", "chapter", "kind", *(f"{word}_{one}" for one in languages for word in ("question", "answer"))])
    for note in chosen:
        kind = note.tags[-1].rpartition("::")[2]
        rows.writerow([note.id, note.chapter, kind, *(text for one in languages for text in note.sides[one].plain)])
    progress.replace(Path(file), out.getvalue().encode("utf-8-sig"))
    return len(chosen)


def _chosen(chapter: str | None, language: str, with_atoms: bool) -> list[Note]:
    if language not in CHOICES:
        raise ValueError(f"there is no language {language!r}: choose one of {', '.join(CHOICES)}")
    return notes(chapter, with_atoms)


def _decks(chosen: Sequence[Note], language: str) -> list[genanki.Deck]:
    """A deck of cards and one of atoms for each chapter, in the order of the course, and one of terms."""
    models = {kind: _model(kind) for kind in _MODELS}
    decks: dict[str, genanki.Deck] = {}
    for place, note in enumerate(sorted(chosen, key=lambda note: note.chapter)):
        chapter = "" if note.kind == "Terms" else note.chapter
        words = say(f"chapter.{chapter}", "zh" if language == "zh" else "en") if chapter in TITLES else ""
        title = f"::{chapter} {words.replace('::', ':')}".rstrip() if chapter else ""
        name = f"Parallel Lab::{note.kind}{title}"
        deck = decks.setdefault(name, genanki.Deck(_stable(f"{note.kind}/{chapter}"), name))
        tags, fields = list(note.tags), _fields(note, language)
        deck.add_note(genanki.Note(models[note.kind], fields, tags=tags, guid=guid(note.id), due=place))
    return list(decks.values())


def _stable(name: str) -> int:
    """The id of a deck: it stays when the title of a chapter changes."""
    return (1 << 40) | zlib.crc32(f"{PREFIX}{name}".encode())


def _fields(note: Note, language: str) -> list[str]:
    """The fields of a note; those of a language that was not chosen are empty, and give no card."""
    texts = []
    for one in LANGUAGES:
        side = note.sides[one]
        texts += [side.question, side.answer, side.more, note.proof[one]] if language in (BOTH, one) else [""] * 4
    return [note.id, *texts, _image(note.picture)]


def _image(picture: Picture | None) -> str:
    if picture is None:
        return ""
    return f'<img src="{_name(picture)}" alt="{escape(picture.alt)}" width="{picture.width}">'


def _name(picture: Picture) -> str:
    return f"parallel-lab-{hashlib.sha256(picture.png).hexdigest()[:16]}.png"


def _model(kind: str) -> genanki.Model:
    """A kind of notes: two templates, one a language."""
    templates = [
        {"name": "English", "qfmt": _front("Ask"), "afmt": _back("", "Zh")},
        {"name": "中文", "qfmt": _front("AskZh"), "afmt": _back("Zh", "")},
    ]
    css = files("parallel_lab.interview").joinpath("deck.css").read_text(encoding="utf-8")
    fields = [{"name": name} for name in _FIELDS]
    return genanki.Model(_MODELS[kind], f"Parallel Lab {kind}", fields=fields, templates=templates, css=css)


def _front(field: str) -> str:
    language = "zh" if field.endswith("Zh") else "en"
    return f'{{{{#{field}}}}}<div class="ask" lang="{language}">{{{{{field}}}}}</div>{{{{/{field}}}}}'


def _back(own: str, other: str) -> str:
    """The answer, what is folded below it, the picture and the proof; then the other language, folded."""
    language, second = ("zh", "en") if own else ("en", "zh")
    folded = f"<summary>{say('anki.other', language)}</summary>"
    both = "".join(f"{{{{{name}{other}}}}}" for name in ("Ask", "Answer", "More"))
    other_side = f'{{{{#Ask{other}}}}}<details lang="{second}">{folded}{both}</details>{{{{/Ask{other}}}}}'
    inside = f"{{{{Answer{own}}}}}{{{{More{own}}}}}"
    proof = f"{{{{Picture}}}}{{{{Proof{own}}}}}"
    return f'{{{{FrontSide}}}}<hr id="answer"><div lang="{language}">{inside}</div>{other_side}{proof}'


def _package(decks: Iterable[genanki.Deck], media: dict[str, bytes], timestamp: float) -> bytes:
    """The package as bytes: a database and pictures in a zip file."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w") as zipped:
        database = os.path.join(folder, "collection.anki2")
        with closing(sqlite3.connect(database)) as connection:
            whole = genanki.Package(list(decks))
            whole.write_to_db(connection.cursor(), timestamp, count(int(timestamp * 1000)))
            connection.commit()
        _add(zipped, "collection.anki2", Path(database).read_bytes(), zipfile.ZIP_DEFLATED)
        _add(zipped, "media", json.dumps(dict(enumerate(media))).encode(), zipfile.ZIP_DEFLATED)
        for place, png in enumerate(media.values()):
            _add(zipped, str(place), png, zipfile.ZIP_STORED)
    return out.getvalue()


def _add(zipped: zipfile.ZipFile, name: str, data: bytes, how: int) -> None:
    info = zipfile.ZipInfo(name, _EARLIEST)
    info.compress_type = how
    info.external_attr = 0o644 << 16
    zipped.writestr(info, data)
