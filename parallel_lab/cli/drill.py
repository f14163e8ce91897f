"""`plab drill`: problems with fresh numbers, and how they are solved; one after the other against the clock."""

from collections.abc import Callable

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.course import page
from parallel_lab.course.drills import problems
from parallel_lab.course.practice import Attempt, drill
from parallel_lab.course.sprints import Race, sprint

EPILOG = "Examples: plab drill ring-bytes --times 3; plab drill --chapter 09; plab drill --sprint --minutes 10"


@click.command("drill", epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--chapter", help="One of this chapter's drills, as 09: never solved, or solved longest ago.")
@click.option("--times", type=click.IntRange(min=1), help="How many problems to ask (1 if not given).")
@click.option("--sprint", "race", is_flag=True, help="One drill after the other until the time is over, with a score.")
@click.option("--minutes", type=click.FloatRange(1, 120), help="How long a sprint takes (10 if not given).")
def command(name: str | None, chapter: str | None, times: int | None, race: bool, minutes: float | None) -> None:
    """Ask drill NAME with fresh numbers; only Enter shows the solution. Without NAME, list the drills."""
    if race and (name or times):
        raise CommandError("a sprint asks drill after drill: leave out NAME and --times")
    if minutes and not race:
        raise CommandError("--minutes is for a sprint: plab drill --sprint --minutes 10")
    if race:
        _sprint(sprint(minutes or 10, chapter).start())
    elif name or chapter or times:
        for _ in range(times or 1):
            one = drill(name, chapter=chapter).attempt()
            _ask(one, one.answer)
            _derive(one)
    else:
        _list()


def _sprint(race: Race) -> None:
    """Asks until the time is over or the learner stops; the score stands below."""
    try:
        click.echo(f"{race.minutes:g} minutes. Enter alone skips a problem, Ctrl-C ends the sprint.")
        while one := race.ask():
            click.echo(f"\n[{race.left_s / 60:.1f} min left, score {race.score:g}] {one.name}")
            _ask(one, race.answer)
            _derive(one)
    finally:
        click.echo(f"\n{race.report()!r}")


def _ask(one: Attempt, answer: Callable[[str], tuple[bool, str]]) -> None:
    """Asks for a number until it is right, or given up, or too late."""
    drawn = one.drawn
    click.echo(f"\n{drawn.question}{f' (in {drawn.unit})' if drawn.unit else ''}")
    while not one.solved and not one.seen and (given := click.prompt("Answer", default="", show_default=False)):
        right, said = answer(given)
        click.echo(f"{'Right.' if right else 'Not yet.'} {said}".rstrip())


def _derive(one: Attempt) -> None:
    click.echo("\n".join(str(part.text) for part in one.give_up()))


def _list() -> None:
    rows = [(one.chapter, one.name, one.title) for one in problems().values()]
    click.echo(page.table(("chapter", "drill", "asks for"), rows).text)
