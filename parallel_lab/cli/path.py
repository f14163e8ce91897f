"""`plab path`: the map of the course with what is done, due and next."""

from pathlib import Path

import click

from parallel_lab.cli import late, options


@click.command("path", epilog="Examples: plab path, plab path --png path.png")
@click.option("--png", type=options.NewFile(), help="Draw the map into this file as well.")
@options.language
def command(png: Path | None, language: str | None) -> None:
    """Show the chapters in their order: what is done, what is due today, and where the way goes on."""
    click.echo(late.path_page(language))
    if png is not None:
        late.path().save(png)
        click.echo(str(png))
