"""The last page: what was solved, when and with how much help, and what that does not prove.

The page is HTML without scripts and without a network. Whoever reads it sees the counts beside what there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from parallel_lab.course import page, progress
from parallel_lab.course.events import Entries
from parallel_lab.course.spoken import title_in
from parallel_lab.interview import record
from parallel_lab.interview.record import Solved
from parallel_lab.interview.roles import roles
from parallel_lab.interview.words import lang, language_of, say

LIMITS = 5  # sentences on what the page does not prove


def badge(name: str = "", language: str | None = None) -> page.Page:
    """The page, as a cell and a terminal show it.

    Args:
        name: of the learner, if it is to stand there.
        language: `en` or `zh`.

    Raises:
        ValueError: there is no such language.
    """
    chosen, entries = language_of(language), progress.read()
    return page.Page(say("badge.title", chosen), list(_parts(name, chosen, entries)))


def write_badge(file: str | Path, name: str = "", language: str | None = None) -> None:
    """Writes the page to `file` as HTML.

    Raises:
        ValueError: there is no such language.
        OSError: the file cannot be written.
    """
    chosen = language_of(language)
    shown = badge(name, chosen)
    style = files("parallel_lab.interview").joinpath("paper.css").read_text(encoding="utf-8")
    head = '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(shown.label)}</title><style>{style}</style></head>"
    body = "\n".join(part.html for part in shown.parts)
    text = f'<!DOCTYPE html>\n<html lang="{chosen}">{head}<body><main>{body}</main></body></html>\n'
    progress.replace(Path(file), text)


def _parts(name: str, language: str, entries: Entries) -> Iterator[page.Part]:
    solved, when = record.solved_tasks(entries), record.days(entries)
    yield _line("badge.title", language, tag="h1")
    if name:
        yield page.paragraph(say("badge.of", language, name=name), lang=lang(language), tag="h2")
    yield _line("badge.written", language, day=progress.now().astimezone().date())
    if not when:
        yield _line("badge.none", language)
    else:
        yield _line("badge.period", language, first=when[0], last=when[-1], days=len(when))
        yield _counts(solved, language, entries)
        yield from _mocks(language, record.mocks(entries))
    yield _line("badge.not", language, tag="h2")
    limits = [say(f"badge.not-{n}", language) for n in range(1, LIMITS + 1)]
    rows = "".join(f"<li>{escape(limit)}</li>" for limit in limits)
    yield page.Part(f"<ul>{rows}</ul>", "\n".join(f"- {limit}" for limit in limits))
    if solved:
        yield from _each(solved, language)


def _line(key: str, language: str, tag: str = "p", **values: object) -> page.Part:
    return page.paragraph(say(key, language, **values), lang=lang(language), tag=tag)


def _counts(solved: Sequence[Solved], language: str, entries: Entries) -> page.Part:
    """A row a kind: how many are done, how many there are, with how much help."""
    head = [say(f"badge.{key}", language) for key in ("what", "done", "there", "how")]
    rows = [_of_tasks("exercises", solved, language), _of_tasks("gaps", solved, language)]
    done, there = record.quizzes_done(entries)
    rows.append([say("badge.quizzes", language), str(done), str(there), ""])
    done, there, right, wrong = record.drills_done(entries)
    rows.append(
        [
            say("badge.drills", language),
            str(done),
            str(there),
            say("badge.how-drills", language, right=right, wrong=wrong),
        ]
    )
    done, there, reviews, own = record.atoms_known(entries)
    said = say("badge.how-atoms", language, reviews=reviews, self_judged=own)
    rows.append([say("badge.atoms", language), str(done), str(there), said])
    return page.table(head, rows)


def _of_tasks(kind: str, solved: Sequence[Solved], language: str) -> list[str]:
    mine = [one for one in solved if one.task.gap == (kind == "gaps")]
    there = sum(task.gap == (kind == "gaps") for task in record.tasks().values())
    counted = {
        "clean": sum(one.clean for one in mine),
        "hinted": sum(one.hints > 0 for one in mine),
        "seen": sum(one.solution == "before" for one in mine),
    }
    return [say(f"badge.{kind}", language), str(len(mine)), str(there), say("badge.how-tasks", language, **counted)]


def _mocks(language: str, mocks: Sequence[tuple[str, Mapping]]) -> Iterator[page.Part]:
    yield _line("badge.mocks", language, tag="h2")
    if not mocks:
        yield _line("badge.no-mocks", language)
        return
    head = [say(f"badge.{key}", language) for key in ("when", "role", "minutes", "questions", "result")]
    names = {name: one.title[language] for name, one in roles().items()}
    rows = []
    for key, one in mocks:
        turns = one["turns"]
        result = f"{100 * sum(turn.get('result', 0) for turn in turns) / len(turns):.0f} %"
        ended = "" if one.get("finished") else f", {say('badge.broken-off', language)}"
        rows.append(
            [
                f"{datetime.fromisoformat(key).astimezone():%Y-%m-%d %H:%M}",
                names.get(one.get("role", ""), one.get("role", "")),
                str(one.get("minutes", "")),
                str(len(turns)),
                result + ended,
            ]
        )
    yield page.table(head, rows)


def _each(solved: Sequence[Solved], language: str) -> Iterator[page.Part]:
    yield _line("badge.each", language, tag="h2")
    head = [say(f"badge.{key}", language) for key in ("task", "level", "solved-on", "checks", "hints", "solution")]
    rows = [
        [
            f"{one.task.chapter} {title_in(one.task.name, one.task.title, language)} ({one.task.name})",
            say(f"path.level-{one.task.level}", language),
            one.on,
            str(one.checks),
            str(one.hints or ""),
            say(f"badge.{one.solution}", language) if one.solution else "",
        ]
        for one in solved
    ]
    table = page.table(head, rows)
    yield page.Part(f'<div class="each">{table.html}</div>', table.text)
