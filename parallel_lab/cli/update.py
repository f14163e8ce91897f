"""`plab update`: the newest version of the course, beside what the learner wrote."""

import click

from parallel_lab.course import update, workspace


@click.command("update", epilog="Example: plab update")
def command() -> None:
    """Fetch the newest version of the course and bring it into work/. What you changed there stays."""
    pulled, missed = "", None
    try:
        pulled = update.pull(workspace.root())
        if pulled:
            click.echo(f"pulled {pulled}")
    except update.CannotPull as error:
        missed = error
    brought = update.bring(workspace.root())
    if not pulled and not missed:
        rest = "this is what it brings into work/:" if brought else "and work/ has all of it."
        click.echo(f"Nothing had to be fetched: the newest version is here, {rest}")
    for line in brought:
        click.echo(line)
    if (pulled or brought) and update.YOURS not in brought:
        click.echo(update.RESTART)
    if missed:
        raise click.ClickException(str(missed))
