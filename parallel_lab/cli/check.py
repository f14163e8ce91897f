"""`plab check`: the checks of a notebook without the notebook."""

import sys
from pathlib import Path

import click

from parallel_lab.cli.answers import graded, tasks_named


@click.command("check", epilog="Examples: plab check ring_all_reduce, plab check 02, plab check 02 my_answers.ipynb")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--no-save", is_flag=True, help="Leave the progress as it is.")
def command(name: str, file: Path | None, no_save: bool) -> None:
    """Check the exercise, or all of the notebook or chapter, NAME; exit code 1 unless all are solved.

    Takes each answer, and what it uses, out of FILE (default: your notebook in work/) and runs its checks. Nothing
    else in the notebook runs.
    """
    solved = True
    for task in tasks_named(name):
        report = graded(task, file, save=not no_save)
        click.echo(report or f"{task.name}: {(file or task.file).name} does not define it")
        solved = solved and report is not None and report.passed
    sys.exit(not solved)
