"""`plab update`: the newest version of the course, beside what the learner wrote."""

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.course import update, workspace


@click.command("update", epilog="Examples: plab update, plab update --diff 02")
@click.option(
    "--diff", "compared", metavar="NAME", help="Only show the cells that differ in the .new notebooks of NAME, as 02."
)
def command(compared: str | None) -> None:
    """Fetch the newest version of the course and bring it into work/. What you changed there stays.

    A new version of a notebook that you changed is laid beside it, as a .new file. What the course changed in it is
    shown by --diff; it fetches nothing.
    """
    if compared is not None:
        _differences(compared)
        return
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


def _differences(name: str) -> None:
    said = update.differences(workspace.work(), name)
    if not said:
        raise CommandError(f"no .new file of {name!r} lies in work/, so there is nothing to compare")
    click.echo("\n".join(said).rstrip())
