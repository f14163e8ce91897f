"""`plab quiz`: the self-check of a chapter, one question after the other."""

import click

from parallel_lab.course.asked import lettered
from parallel_lab.course.quizzes import quiz


@click.command("quiz", epilog="Example: plab quiz 02")
@click.argument("chapter")
def command(chapter: str) -> None:
    """Ask the self-check of CHAPTER; type a letter or a number, or only Enter to go on without an answer."""
    asked = quiz(chapter.zfill(2))
    for place, one in enumerate(asked.questions):
        unit = f" (in {one.unit})" if one.unit else ""
        click.echo(f"\n{place + 1} of {len(asked.questions)}. {one.question}{unit}")
        for line in lettered(one.options):
            click.echo(f"   {line}")
        right = False
        while not right and (given := click.prompt("Answer", default="", show_default=False)):
            right, said = asked.answer(place, given)
            click.echo(f"{'Right.' if right else 'Not yet.'} {said}")
    click.echo(f"\n{len(asked.solved)} of {len(asked.questions)} right")
