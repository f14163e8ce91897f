"""`plab progress`: what is solved and what comes next, and the union with another machine's progress."""

from pathlib import Path

import click

from parallel_lab.course import progress
from parallel_lab.course.chapters import progress_table


@click.command("progress", epilog="Examples: plab progress, plab progress --merge ~/Downloads/progress.json")
@click.option("--merge", type=click.Path(path_type=Path), help="Take up another machine's progress file first.")
def command(merge: Path | None) -> None:
    """Show what was begun and solved, in the order of the course, how much there is, and what comes next.

    With --merge, of two scores the better one stays and of two logs of reviews the union; the other file is only read.
    """
    if merge and (warning := progress.merge(merge)):
        click.echo(warning, err=True)
    click.echo(progress_table())
