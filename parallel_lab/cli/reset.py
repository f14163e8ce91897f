"""`plab reset`: an empty exercise notebook again."""

import shutil

import click

from parallel_lab.cli import folders
from parallel_lab.course import progress


@click.command("reset", epilog="Examples: plab reset 02, plab reset 02_collectives --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Put the empty exercise notebook NAME back; what you wrote is kept beside it as .bak1."""
    given = folders.notebook_named(name, "exercises")
    target = folders.learners(given)
    if target.is_file():
        if not yes:
            click.confirm(f"Replace {target} by the empty exercise?", abort=True)
        kept = progress.free(f"{target}.bak")
        shutil.copy2(target, kept)
        click.echo(f"your notebook is kept as {kept.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    progress.replace(target, given.read_text(encoding="utf-8"))
    click.echo(f"{target.name} is empty again; close and reopen it in JupyterLab")
