"""`plab watch`: checks on every save of the learner's notebook."""

import os
import time
from pathlib import Path

import click

from parallel_lab.cli.answers import graded, tasks_named
from parallel_lab.cli.folders import CommandError
from parallel_lab.course import progress
from parallel_lab.course.chapters import next_exercise
from parallel_lab.course.tasks import Task

POLL_S = 0.5


@click.command("watch", epilog="Example: plab watch 02")
@click.argument("name")
def command(name: str) -> None:
    """Check the exercises of chapter, notebook or exercise NAME on every save, one after the other.

    Moves on when one is solved; Ctrl-C ends it.
    """
    wanted, solved = tasks_named(name), progress.read()["exercises"]
    for task in wanted:
        if not progress.solved(solved.get(task.name, {})):
            click.echo(f"\n{task}\n  write it in {os.path.relpath(task.file)} and save; Ctrl-C ends")
            while not _passes(task, since := _saved(task.file)):
                _wait(task.file, since)
    comes = next_exercise()
    click.echo(f"\nAll of {name} is solved. {f'Next: {comes}' if comes else 'Nothing is left to solve.'}")


def _passes(task: Task, saved: int) -> bool:
    """Checks the answer as it was `saved`, and says what came out."""
    if not saved:
        raise CommandError(f"{task.file} is not there yet: `make lab` or `plab update` brings it")
    try:
        report = graded(task)
    except CommandError as error:  # half written: the next save may be whole
        click.echo(f"{task.name}: {error}")
        return False
    click.echo(report or f"{task.name}: {task.file.name} does not define it")
    return report is not None and report.passed


def _saved(file: Path) -> int:
    """When `file` was saved; 0 if it is not there."""
    return file.stat().st_mtime_ns if file.is_file() else 0


def _wait(file: Path, since: int) -> None:
    """Waits for the next save of `file`; while JupyterLab replaces it, it is not there."""
    while _saved(file) in (0, since):
        time.sleep(POLL_S)
