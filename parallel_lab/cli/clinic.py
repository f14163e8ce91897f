"""`plab clinic`: broken jobs to look into, and the judge of a diagnosis."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from parallel_lab import clinic
from parallel_lab.cli import late, options
from parallel_lab.cli.answers import function_of
from parallel_lab.cli.folders import CommandError
from parallel_lab.course import page
from parallel_lab.interview.kept import MINUTES
from parallel_lab.interview.words import from_english, language_of, say


@click.command(
    "clinic",
    epilog='Examples: plab clinic 7, plab clinic 7 mine.py:job, plab clinic 7 mine.py:job --cause "slow link", '
    "plab clinic --round --file mine.py",
)
@click.argument("case", required=False)
@click.argument("target", metavar="[FILE.py:FUNCTION]", required=False)
@click.option("--cause", help="What you take for the cause; your function is then judged as its mend.")
@click.option("--round", "hidden", is_flag=True, help="A debugging round: a case with a hidden fault, and a clock.")
@click.option("--minutes", default=MINUTES, show_default=True, type=float, help="How long a round is meant to take.")
@click.option("--seed", type=int, help="The same case of a round for the same seed and progress.")
@options.language
@click.option("--file", type=options.NewFile(), help="Write the program of a round here, to mend it.")
def command(case: str | None, target: str | None, cause: str | None, hidden: bool, **round_of: Any) -> None:
    """Run broken job CASE on real ranks and show its chart; with a function, run that in place of the program.

    Without CASE, list the complaints; `plab clinic causes` lists the causes and how each shows.
    """
    if hidden:
        if target or cause is not None:
            raise CommandError("--round hides its case: it takes no function and no --cause; add --file to mend it")
        _round(case, **round_of)
        return
    if cause is not None and not target:
        number = case if case and case.isdecimal() else "CASE"
        raise CommandError(f"--cause needs your mended job as well: plab clinic {number} FILE.py:FUNCTION --cause ...")
    own = language_of(round_of["language"])
    if case is None or case == "causes":
        _causes(own) if case else _complaints(own)
        return
    if not case.isdecimal():
        raise CommandError(f"{case!r} is no case: expected a number, as in `plab clinic 7`, or `plab clinic causes`")
    job = function_of(target) if target else None
    if cause is not None and job:
        diagnosis = late.diagnose(int(case), cause, job)
        click.echo(str(diagnosis))
        click.get_current_context().exit(0 if diagnosis.passed else 1)
    opened = late.open_case(int(case), job)
    if own == "en":
        click.echo(str(opened))
        return
    texts = [
        late.of_case(opened.case, "title", own),
        *(str(part.text) for part in late.chart_parts(opened, own) if part.text),
    ]
    click.echo("\n\n".join([f"{case}. {texts[0]}", *texts[1:]]))


def _complaints(own: str) -> None:
    rows = [(str(one.number), late.of_case(one, "title", own)) for one in clinic.CASES.values()]
    click.echo(page.table((say("clinic.case", own), say("clinic.complaint", own)), rows).text)


def _causes(own: str) -> None:
    for one in clinic.CAUSES.values():
        symptom, of = say(f"clinic.{one.symptom.replace(' ', '-')}", own), say(f"chapter.{one.chapter}", own)
        about = f"{symptom}, chapter {one.chapter}" if own == "en" else f"{symptom}；第 {one.chapter} 章：{of}"
        click.echo(f"{late.cause_words(one.name, own)} ({about})")
        shown = late.of_cause(one, "signature", own)
        click.echo(textwrap.indent(textwrap.fill(shown, 96) if own == "en" else shown, "  "))


def _round(case: str | None, minutes: float, seed: int | None, language: str | None, file: Path | None) -> None:
    """A debugging round: the chart, the cause, the mended job; time and score are kept, also where one stops."""
    if case is not None and not case.isdecimal():
        raise CommandError(f"{case!r} is no case: expected a number, or none")
    own = language_of(language)
    if file and file.exists():
        raise CommandError(f"{file} exists already: give a new file")
    late.check_minutes(minutes, own)
    click.echo(f"{say('debugging.rules', own, minutes=f'{minutes:g}')}\n{say('debugging.running', own)}")
    of = late.begin(minutes, number=int(case) if case else None, seed=seed, language=own)
    if file:
        file.write_text(late.program(of.case), encoding="utf-8")
    click.echo(f"\n{say('debugging.english', own)}")
    for part in late.chart_parts(of.opened, own):
        if part.text:
            click.echo(f"{part.text}\n")
    try:
        _name(of)
        _mend(of, file)
    finally:
        click.echo(f"\n{of.finish()!r}")


def _name(of: late.Round) -> None:
    click.echo(f"{say('debugging.ask', of.language)}")
    letters = "abcdefgh"[: len(of.words)]
    for letter, word in zip(letters, of.words, strict=True):
        click.echo(f"   {letter}) {word}")
    while not of.found:
        given = _typed(of, say("debugging.ask-typed", of.language)).lower().rstrip(")")
        if not given:
            return
        if len(given) == 1 and given in letters:
            click.echo(of.name(letters.index(given)))
        else:
            click.echo(say("review.no-option", of.language))


def _mend(of: late.Round, file: Path | None) -> None:
    if file:
        click.echo(f"\n{say('debugging.wrote', of.language, file=file)}")
    while not of.mended:
        key = "debugging.mend-typed" if file else "debugging.mend-file"
        given = _typed(of, say(key, of.language, file=file) if file else say(key, of.language))
        if given == ("s" if file else ""):
            return
        try:
            job = function_of(f"{file}:{of.case.job.__name__}" if file else given)
        except CommandError as wrong:
            click.echo(from_english(str(wrong), of.language))
            continue
        click.echo(say("debugging.running", of.language))
        click.echo(of.mend(job))


def _typed(of: late.Round, words: str) -> str:
    return click.prompt(f"[{of.clock}] {words}", default="", show_default=False).strip()
