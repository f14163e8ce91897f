"""`plab ladder`: half-truths to judge in a terminal."""

import click

from parallel_lab.cli import options
from parallel_lab.cli.review import stated
from parallel_lab.course import page
from parallel_lab.interview.climbing import COUNT, Climb, climb
from parallel_lab.interview.words import say

LETTERS = {"r": "right", "h": "half", "w": "wrong"}


@click.command("ladder", epilog="Examples: plab ladder --count 3, plab ladder --chapter 09 --language zh")
@click.option("--count", default=COUNT, show_default=True, type=click.IntRange(min=1), help="How many sentences.")
@click.option("--chapter", help="Only of this chapter, as 09.")
@click.option("--seed", type=int, help="The same sentences for the same seed and progress.")
@options.language
def command(count: int, chapter: str | None, seed: int | None, language: str | None) -> None:
    """Judge sentences as people say them: right, half right or wrong? Then the number, then the evidence.

    Each answer is kept at once. Stop at any time with Ctrl-C; the score so far is kept.
    """
    of = climb(count, chapter=chapter, seed=seed, language=language)
    click.echo(say("ladder.rules", of.language))
    try:
        while not of.over:
            _verdict(of)
            if of.rung.number:
                _number(of)
            if click.confirm(say("ladder.run-typed", of.language), default=False):
                click.echo(of.evidence())
            of.step()
    finally:
        click.echo(f"\n{of.finish()!r}")


def _verdict(of: Climb) -> None:
    own = of.language
    click.echo(f"\n[{say('ladder.count', own, n=of.place + 1, count=len(of.rungs))}]\n{of.rung.sentence.asked(own)}")
    confidence = stated(own)
    letter = click.prompt(say("ladder.typed", own), type=click.Choice(list(LETTERS), case_sensitive=False))
    click.echo(of.judge(LETTERS[letter], confidence))


def _number(of: Climb) -> None:
    own, atom = of.language, of.rung.number
    assert atom
    unit = f" ({atom.unit})" if atom.unit else ""
    click.echo(f"\n{say('ladder.number', own)} {page.markdown(atom.asked(own)).text}{unit}")
    over = False
    while not over:
        given = click.prompt(say("review.number-typed", own), default="", show_default=False)
        over, shown = of.answer(given) if given.strip() else (True, of.show_number())
        click.echo(shown)
