"""`plab badge`: a page that states what was solved, with how much help, and what it does not prove."""

from pathlib import Path

import click

from parallel_lab.cli import options
from parallel_lab.interview.badge_page import badge, write_badge


@click.command("badge", epilog="Examples: plab badge, plab badge --html badge.html --name 'Li Wei' --language zh")
@click.option("--html", type=options.NewFile(), help="Write the page here.")
@click.option("--name", default="", help="Who did the work, if it is to stand there.")
@options.language
def command(html: Path | None, name: str, language: str | None) -> None:
    """State what was solved, when and with which help, from your progress, and what that does not prove."""
    if html is None:
        click.echo(badge(name, language))
        return
    write_badge(html, name, language)
    click.echo(str(html))
