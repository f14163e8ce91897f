"""`plab progress`: what is solved and what comes next."""

import click

from parallel_lab.course.chapters import progress_table


@click.command("progress", epilog="Example: plab progress")
def command() -> None:
    """Show what was begun and solved, in the order of the course, how much there is, and what comes next."""
    click.echo(progress_table())
