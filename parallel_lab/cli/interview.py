"""`plab interview`: a mock interview in a terminal, and the reports of those so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from parallel_lab.cli import late, options
from parallel_lab.cli.answers import functions_in
from parallel_lab.cli.folders import CommandError
from parallel_lab.cli.review import stated
from parallel_lab.course import progress
from parallel_lab.course.asked import lettered
from parallel_lab.interview.roles import forms, roles
from parallel_lab.interview.rounds import WORDS, Turn
from parallel_lab.interview.words import from_english, language_of, say

MINUTES = [str(minutes) for minutes in forms()]
PROMPTS = {"number": "type-number", "choice": "type-choice", "layout": "type-layout", "code": "type-code"}


@click.command(
    "interview",
    epilog="Examples: plab interview --role lead --minutes 15, plab interview --language zh, plab interview --report",
)
@click.option("--role", type=click.Choice(list(roles())), help="Whose interview; without it you are asked.")
@click.option("--minutes", type=click.Choice(MINUTES), default="15", show_default=True, help="How long.")
@options.language
@click.option("--seed", type=int, help="The same questions for the same seed and progress.")
@click.option("--sure", "asks_sure", is_flag=True, help="Ask how sure you are before each answer.")
@click.option("--report", "reported", is_flag=True, help="Show the report of the last interview, and list all.")
def command(
    role: str | None, minutes: str, language: str | None, seed: int | None, asks_sure: bool, reported: bool
) -> None:
    """Take a mock interview: questions with follow-ups, a number, a log, a small coding task; then a report."""
    words = language_of(language)
    if reported:
        click.echo(late.report(language=words))
        click.echo(f"\n{late.listed(words)}")
        return
    if role is None:
        for name, one in roles().items():
            click.echo(f"{name}: {one.title[words]}")
        role = click.prompt(say("mock.role", words), type=click.Choice(list(roles())), default=next(iter(roles())))
    interview = late.Mock(role, int(minutes), words, seed=seed, told=lambda said: click.echo(said, err=True))
    kinds = say("schedule.list", words).join(interview.say(f"round.{part.kind}") for part in interview.rounds)
    click.echo(interview.say("about", minutes=minutes, rounds=kinds))
    try:
        _hold(interview, asks_sure)
    finally:
        interview.stop()
        if interview.stopped:
            click.echo(f"\n{interview.say('stopped')}", err=True)
    unreached = interview.unreached
    click.echo(interview.say("time-up", count=unreached) if unreached else interview.say("over"))
    click.echo(f"\n{late.report(interview.key, words)}")


def _hold(interview: late.Mock, asks_sure: bool) -> None:
    """Asks turn by turn until the interview is over."""
    while turn := interview.turn:
        if turn.follow:
            key = "follow-up-missed" if turn.missed else "follow-up"
            click.echo(f"\n-- {interview.say(key, number=turn.follow)}")
        else:
            click.echo(f"\n== {interview.where}")
        _ask(interview, turn, asks_sure)
        if interview.warning:
            click.echo(interview.warning, err=True)
            interview.warning = ""
        interview.go_on()


def _ask(interview: late.Mock, turn: Turn, asks_sure: bool) -> None:
    click.echo(f"[{_clock(interview.left_s)}] {turn.ask}\n")
    for part in turn.shown:
        if part.text:
            click.echo(part.text)
    for line in lettered(turn.options):
        click.echo(f"   {line}")
    confidence = stated(interview.language) if asks_sure else None
    if turn.kind == "speak":
        _spoken(interview, turn, confidence)
    else:
        _machine(interview, turn, confidence)


def _spoken(interview: late.Mock, turn: Turn, confidence: float | None) -> None:
    """The answer aloud, the rubric, and what was said."""
    count = WORDS[turn.speak_s][interview.language]
    click.echo(interview.say("speak", seconds=turn.speak_s, count=count))
    click.echo(f"\n{interview.answer(_typed(interview.say('type-answered')), confidence)}\n")
    click.echo(interview.say("ticks"))
    for number, point in enumerate(turn.points, 1):
        heard = "x" if point.key in interview.suggested else " "
        click.echo(f"  [{heard}] {number}. {point.text}")
    ticked = _numbers(interview, turn)
    word = interview.mark([turn.points[number - 1].key for number in ticked])
    click.echo(interview.say("noted", result=interview.say(f"result.{word}")))


def _numbers(interview: late.Mock, turn: Turn) -> list[int]:
    """The numbers of points, typed until they are some."""
    while True:
        given = _typed(interview.say("type-ticks"))
        pieces = given.replace(",", " ").split()
        if all(piece.isdecimal() and 1 <= int(piece) <= len(turn.points) for piece in pieces):
            return [int(piece) for piece in pieces]
        click.echo(interview.say("wrong-ticks", given=given, count=len(turn.points)))


def _machine(interview: late.Mock, turn: Turn, confidence: float | None) -> None:
    """What a machine judges: typed again until it is right, or until only Enter is typed."""
    file = _written(turn) if turn.kind == "code" else None
    if file:
        click.echo(f"{turn.stub}\n\n({file})")
    while not interview.answered:
        given = _typed(interview.say(PROMPTS[turn.kind]))
        if not given:
            click.echo(interview.reveal())
            return
        if file:
            click.echo(interview.say("wait-grade"), err=True)
        try:
            click.echo(interview.answer(_code(turn, given, file) if file else given, confidence))
        except CommandError as error:
            click.echo(from_english(str(error), interview.language))


def _written(turn: Turn) -> Path:
    """The stub as a file of the learner's, which is never overwritten."""
    file = progress.location().parent / "interview" / f"{turn.key.partition('/')[2]}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text(f"{turn.stub}\n", encoding="utf-8")
    return file


def _code(turn: Turn, given: str, file: Path) -> Any:
    """The source or the function that was handed in: `e` opens the editor, all else is the path of a file.

    Raises:
        CommandError: there is no such file.
    """
    if given == "e":
        click.edit(filename=str(file))
    elif not (file := Path(given).expanduser()).is_file():
        raise CommandError(f"there is no file {given!r}")
    if file.suffix == ".ipynb":
        name = turn.key.partition("/")[2]
        return functions_in(file, name).get(name, "pass")
    return file.read_text(encoding="utf-8")


def _typed(words: str) -> str:
    return click.prompt(words, default="", show_default=False).strip()


def _clock(left_s: float) -> str:
    minutes, seconds = divmod(max(int(left_s), 0), 60)
    return f"{minutes}:{seconds:02}"
