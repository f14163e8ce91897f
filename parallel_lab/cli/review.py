"""`plab review`: what is due today, asked in a terminal."""

import click

from parallel_lab.cli import options
from parallel_lab.course import page
from parallel_lab.course.asked import Choice, option_lines
from parallel_lab.interview.asking import Asking, Word, again_on, sure
from parallel_lab.interview.sessions import saved, session
from parallel_lab.interview.words import say


@click.command("review", epilog="Examples: plab review --minutes 10, plab review --chapter 09 --language zh")
@options.language
@click.option("--answer-in", type=click.Choice(["en", "zh"]), help="Show the answers in this language instead.")
@click.option(
    "--minutes", type=float, help="What there is time for; without, all that is due, and the new ones of a day."
)
@click.option("--chapter", help="Only what belongs to this chapter, as 09.")
@click.option("--seed", type=int, help="The same numbers in drills for the same seed.")
@click.option("--sure/--no-sure", "confidence", default=True, help="Ask how sure you are before each answer.")
def command(
    language: str | None,
    answer_in: str | None,
    minutes: float | None,
    chapter: str | None,
    seed: int | None,
    confidence: bool,
) -> None:
    """Ask what is due today: atoms of cards, drills, questions of self-checks. Each answer is kept at once.

    What you judge as failed comes back within minutes, what was known after days. Stop at any time with Ctrl-C.
    """
    one = session(language, answer_in, chapter, minutes, seed)
    _show(one.beginning())
    while asking := one.next():
        click.echo(f"\n[{one.count}]")
        _show(asking.question)
        if confidence:
            asking.confidence = stated(asking.language)
        _aloud(asking) if asking.judged is None else _judged(asking)
        click.echo(" ".join(filter(None, [again_on(asking), saved(asking)])))
    click.echo(f"\n{one.end()!r}")


def stated(language: str) -> float | None:
    """How sure one is, from 0 to 1; None where nothing was typed."""
    while True:
        try:
            return sure(click.prompt(say("review.sure-typed", language), default="", show_default=False))
        except ValueError:
            click.echo(say("review.sure-wrong", language))


def _aloud(asking: Asking) -> None:
    """What one judges oneself."""
    _prompt(asking, "aloud-typed")
    _show(asking.solution())
    while asking.rating is None:
        typed = _prompt(asking, "rate-typed").strip()
        if typed in ("1", "2", "3", "4"):
            asking.rate(int(typed))


def _judged(asking: Asking) -> None:
    """What the machine judges; only Enter shows the answer."""
    if isinstance(asking.judged, Choice):
        _show(option_lines(asking.judged))
    while asking.rating is None:
        given = _prompt(asking, f"{_typed(asking)}-typed")
        if not given.strip():
            asking.give_up()
            break
        right, said = asking.answer(given)
        verdict = say("common.right" if right else "common.not-yet", asking.language)
        click.echo(f"{verdict} {said}".rstrip())
    _show(asking.solution())


def _typed(asking: Asking) -> str:
    return {Choice: "pick", Word: "word"}.get(type(asking.judged), "number")


def _prompt(asking: Asking, key: str) -> str:
    return click.prompt(say(f"review.{key}", asking.language), default="", show_default=False)


def _show(parts: list[page.Part]) -> None:
    click.echo("\n".join(part.text for part in parts if part.text))
