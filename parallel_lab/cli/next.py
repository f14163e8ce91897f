"""`plab next`: what to solve next."""

import os

import click

from parallel_lab.course.chapters import TITLES, next_exercise, totals


@click.command("next", epilog="Example: plab next")
def command() -> None:
    """Say which gap or exercise comes next, in which notebook it stands and how it is checked."""
    task = next_exercise()
    if task is None:
        click.echo(f"Nothing is left to solve: {totals()}.")
        return
    click.echo(f"Chapter {task.chapter}, {TITLES[task.chapter]}")
    click.echo(str(task))
    click.echo(f"  open   {os.path.relpath(task.file)}")
    click.echo(f'  check  check("{task.name}", {task.name})  or  plab check {task.name}')
