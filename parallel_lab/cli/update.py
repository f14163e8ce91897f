"""`plab update`: the newest version of the course, beside what the learner wrote."""

import click

from parallel_lab.course import update, workspace


@click.command("update", epilog="Example: plab update")
def command() -> None:
    """Fetch the newest version of the course and bring it into work/. What you changed there stays."""
    missed = None
    try:
        click.echo(update.pull(workspace.root()))
    except update.CannotPull as error:
        missed = error
    for line in update.bring(workspace.root()):
        click.echo(line)
    if missed:
        raise click.ClickException(str(missed))
