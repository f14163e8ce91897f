"""`plab drill`: problems with fresh numbers, and how they are solved."""

import click

from parallel_lab.course import page
from parallel_lab.course.drills import problems
from parallel_lab.course.practice import drill, solution


@click.command("drill", epilog="Example: plab drill ring-bytes --times 3")
@click.argument("name", required=False)
@click.option("--times", default=1, show_default=True, type=click.IntRange(min=1), help="How many problems to ask.")
def command(name: str | None, times: int) -> None:
    """Ask drill NAME with fresh numbers; only Enter shows the solution. Without NAME, list the drills."""
    if name is None:
        rows = [(one.chapter, one.name, one.title) for one in problems().values()]
        click.echo(page.table(("chapter", "drill", "asks for"), rows).text)
        return
    one = drill(name)
    for _ in range(times):
        drawn, right = one.draw(), False
        click.echo(f"\n{drawn.question}{f' (in {drawn.unit})' if drawn.unit else ''}")
        while not right and (given := click.prompt("Answer", default="", show_default=False)):
            right, said = one.answer(drawn, given)
            click.echo(f"{'Right.' if right else 'Not yet.'} {said}")
        if not right and (warning := one.give_up()):
            click.echo(warning, err=True)
        click.echo("\n".join(str(part.text) for part in solution(drawn)))
