"""`plab check`: the checks of a notebook without it, of one exercise or of all, for people and for programs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import click

from parallel_lab.cli import late
from parallel_lab.cli.answers import graded, tasks_named
from parallel_lab.cli.folders import CommandError
from parallel_lab.course.tasks import Task, tasks

Graded: TypeAlias = "tuple[Task, late.Report | None, str]"


@click.command(
    "check",
    epilog="Examples: plab check ring_all_reduce, plab check 02, plab check 02 my_answers.ipynb, "
    "plab check --all --json --work handed_in/ada",
)
@click.argument("name", required=False)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Check every exercise and every gap.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for a program that gives marks.")
@click.option(
    "--work",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Whose answers: a folder with notebooks/ and exercises/, in place of yours. Books nothing.",
)
@click.option("--no-save", is_flag=True, help="Leave the progress as it is.")
def command(
    name: str | None, file: Path | None, everything: bool, as_json: bool, work: Path | None, no_save: bool
) -> None:
    """Check the exercise, or all of the notebook or chapter, NAME; exit code 1 unless all are solved.

    Takes each answer, and what it uses, out of FILE (default: your notebook in work/) and runs its checks. Nothing
    else in the notebook runs.
    """
    if everything == bool(name):
        raise CommandError("name one exercise, notebook or chapter, or say --all")
    asked = list(tasks().values()) if everything else tasks_named(str(name))
    found = _graded(asked, file, work, save=not (no_save or work))
    if as_json:
        with click.progressbar(length=len(asked), label="Checking", file=sys.stderr) as bar:
            rows = [_row(one) for one in found if bar.update(1) is None]
        click.echo(json.dumps({"version": 1, "exercises": rows, **_sums(rows)}, indent=1, ensure_ascii=False))
        sys.exit(not all(row["passed"] for row in rows))
    solved = True
    for task, report, said in found:
        click.echo(report or f"{task.name}: {said}")
        solved = solved and report is not None and report.passed
    sys.exit(not solved)


def _graded(asked: list[Task], file: Path | None, work: Path | None, save: bool) -> Iterator[Graded]:
    """Each task with the report on its answer, or with why there is none. Of several, one that fails stops no other."""
    for task in asked:
        source = file or (work / task.folder / task.file.name if work else task.file)
        try:
            report = graded(task, source, save)
        except CommandError as error:
            if len(asked) == 1 or not (work or source == task.file):
                raise
            yield task, None, str(error)
        else:
            yield task, report, f"{source.name} does not define it"


def _row(one: Graded) -> dict[str, Any]:
    """A task as a program reads it: its name, how many of its tests passed, and what was said of each."""
    task, report, said = one
    verdicts = report.verdicts if report else ()
    tests = [{"title": one.title, "state": one.state, "seen": one.seen, "advice": one.advice} for one in verdicts]
    about = {"name": task.name, "chapter": task.chapter, "notebook": task.notebook, "gap": task.gap}
    score = report.score if report else 0.0
    return (
        about
        | {"passed": bool(report and report.passed), "score": score, "tests": tests}
        | ({} if tests else {"said": report.said if report else said})
    )


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"solved": sum(row["passed"] for row in rows), "of": len(rows), "score": sum(row["score"] for row in rows)}
