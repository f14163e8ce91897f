"""`plab badge`: a page that states what was solved, with how much help, and what it does not prove."""

from pathlib import Path

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.interview.badge_page import badge, write_badge
from parallel_lab.interview.words import LANGUAGES


@click.command("badge", epilog="Examples: plab badge, plab badge --html badge.html --name 'Li Wei' --language zh")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the page here.")
@click.option("--name", default="", help="Who did the work, if it is to stand there.")
@click.option("--language", type=click.Choice(LANGUAGES), help="Of the words; PARALLEL_LAB_LANGUAGE without.")
def command(html: Path | None, name: str, language: str | None) -> None:
    """State what was solved, when and with which help, from your progress, and what that does not prove."""
    if html is None:
        click.echo(badge(name, language))
        return
    if not html.absolute().parent.is_dir():
        raise CommandError(f"{html}: there is no folder {html.parent}")
    write_badge(html, name, language)
    click.echo(str(html))
