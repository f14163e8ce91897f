"""`plab quiz`: the self-check of a chapter, one question after the other."""

import click

from parallel_lab.cli import options
from parallel_lab.course.asked import lettered
from parallel_lab.course.quizzes import quiz
from parallel_lab.course.spoken import in_unit, say


@click.command("quiz", epilog="Example: plab quiz 02")
@click.argument("chapter")
@options.language
def command(chapter: str, language: str | None) -> None:
    """Ask the self-check of CHAPTER; type a letter or a number, or only Enter to go on without an answer."""
    asked = quiz(chapter.zfill(2), language)
    own, count = asked.language, len(asked.questions)
    for place, one in enumerate(asked.questions):
        click.echo(f"\n{say('quiz-of', own, n=place + 1, count=count)} {in_unit(one, own)}")
        for line in lettered(one.options):
            click.echo(f"   {line}")
        right = False
        while not right and (given := click.prompt(say("prompt", own), default="", show_default=False)):
            right, said = asked.answer(place, given)
            click.echo(f"{say('right' if right else 'not-yet', own)}{'.' if own == 'en' else '。'} {said}")
    click.echo(f"\n{say('quiz-score', own, right=len(asked.solved), count=count)}")
