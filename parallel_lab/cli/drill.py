"""`plab drill`: problems with fresh numbers, and how they are solved; one after the other against the clock."""

from __future__ import annotations

from collections.abc import Callable

import click

from parallel_lab.cli import late, options
from parallel_lab.cli.folders import CommandError
from parallel_lab.course import page
from parallel_lab.course.drills import problems
from parallel_lab.course.practice import Attempt, drill
from parallel_lab.course.spoken import in_unit, language_of, say, title_in

EPILOG = "Examples: plab drill ring-bytes --times 3; plab drill --chapter 09; plab drill --sprint --minutes 10"


@click.command("drill", epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--chapter", help="One of this chapter's drills, as 09: never solved, or solved longest ago.")
@click.option("--times", type=click.IntRange(min=1), help="How many problems to ask (1 if not given).")
@click.option("--sprint", "race", is_flag=True, help="One drill after the other until the time is over, with a score.")
@click.option("--minutes", type=click.FloatRange(1, 120), help="How long a sprint takes (10 if not given).")
@options.language
def command(
    name: str | None,
    chapter: str | None,
    times: int | None,
    race: bool,
    minutes: float | None,
    language: str | None,
) -> None:
    """Ask drill NAME with fresh numbers; only Enter shows the solution. Without NAME, list the drills."""
    if race and (name or times):
        raise CommandError("a sprint asks drill after drill: leave out NAME and --times")
    if minutes and not race:
        raise CommandError("--minutes is for a sprint: plab drill --sprint --minutes 10")
    if race:
        _sprint(late.sprint(minutes or 10, chapter, language=language).start())
    elif name or chapter or times:
        for _ in range(times or 1):
            one = drill(name, chapter=chapter, language=language).attempt()
            _ask(one, one.answer)
            _derive(one)
    else:
        _list(language_of(language))


def _sprint(race: late.Race) -> None:
    """Asks until the time is over or the learner stops; the score stands below."""
    try:
        click.echo(say("how", race.language, minutes=f"{race.minutes:g}"))
        while one := race.ask():
            about = {"left": f"{race.left_s / 60:.1f}", "score": f"{race.score:g}", "name": one.name}
            click.echo(f"\n{say('left', race.language, **about)}")
            _ask(one, race.answer)
            _derive(one)
    finally:
        click.echo(f"\n{race.report()!r}")


def _ask(one: Attempt, answer: Callable[[str], tuple[bool, str]]) -> None:
    """Asks for a number until it is right, or given up, or too late."""
    click.echo(f"\n{in_unit(one.drawn, one.language)}")
    words = say("prompt", one.language)
    while not one.solved and not one.seen and (given := click.prompt(words, default="", show_default=False)):
        right, said = answer(given)
        verdict = say("right" if right else "not-yet", one.language) + ("." if one.language == "en" else "。")
        click.echo(f"{verdict} {said}".rstrip())


def _derive(one: Attempt) -> None:
    click.echo("\n".join(str(part.text) for part in one.give_up()))


def _list(language: str) -> None:
    rows = [(one.chapter, one.name, title_in(one.name, one.title, language)) for one in problems().values()]
    click.echo(page.table([say(f"head-{key}", language) for key in ("chapter", "drill", "asks")], rows).text)
