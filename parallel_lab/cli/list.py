"""`plab list`: what there is."""

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.course import progress
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.questions import card, index
from parallel_lab.course.tasks import tasks


@click.command("list", epilog="Examples: plab list, plab list 02")
@click.argument("chapter", required=False)
def command(chapter: str | None) -> None:
    """List chapters with their exercises and questions; of one CHAPTER only, if given."""
    entries = progress.read()
    wanted = [one for one in TITLES if chapter is None or one == chapter.zfill(2)]
    if not wanted:
        raise CommandError(f"there is no chapter {chapter!r}; there are {min(TITLES)} to {max(TITLES)}")
    for one in wanted:
        click.echo(f"{one} {TITLES[one]}")
        for task in (task for task in tasks().values() if task.chapter == one):
            state = progress.state(entries["exercises"].get(task.name, {}))
            kind = "gap" if task.gap else "exercise"
            click.echo(f"  {kind:<9} {task.name:<18} {task.title} ({task.level}, {task.minutes} min)  [{state}]")
        cards = {question: card(question) for question in index().values() if question.chapter == one}
        for question in (question for question, its in cards.items() if its.status):
            known = entries["cards"].get(question.id, {}).get("known", "not asked")
            click.echo(f"  {question.kind:<9} {question.id:<18} {question.ask}  [{known}]")
        missing = [question.id for question, its in cards.items() if not its.status]
        if missing:
            click.echo(f"  no card yet: {', '.join(missing)}")
