"""`plab path`: the map of the course with what is done, due and next."""

from pathlib import Path

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.interview.course_path import path, path_page
from parallel_lab.interview.words import LANGUAGES


@click.command("path", epilog="Examples: plab path, plab path --png path.png")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw the map into this file as well.")
@click.option("--language", type=click.Choice(LANGUAGES), help="Of the words; PARALLEL_LAB_LANGUAGE without.")
def command(png: Path | None, language: str | None) -> None:
    """Show the chapters in their order: what is done, what is due today, and where the way goes on."""
    click.echo(path_page(language))
    if png is not None:
        if not png.absolute().parent.is_dir():
            raise CommandError(f"{png}: there is no folder {png.parent}")
        path().save(png)
        click.echo(str(png))
