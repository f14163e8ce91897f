"""`plab night`: the first pages of all chapters, as HTML and as PDF."""

from pathlib import Path

import click

from parallel_lab.cli import late, options
from parallel_lab.interview.printing import find_browser
from parallel_lab.interview.words import language_of, say


@click.command("night", epilog="Examples: plab night, plab night --pdf night.pdf --cards --language zh")
@click.option("--html", type=options.NewFile(), help="Write the page here.")
@click.option("--pdf", type=options.NewFile(), help="Print it here, with a browser that is on this machine.")
@click.option("--cards", is_flag=True, help="Add the 30-second answers of each chapter's questions.")
@options.language
def command(html: Path | None, pdf: Path | None, cards: bool, language: str | None) -> None:
    """Put the first pages of all chapters on one page. Without a file, both: night-before.html and night-before.pdf."""
    chosen = language_of(language)
    if html is None and pdf is None:
        html, pdf = Path("night-before.html"), Path("night-before.pdf")
    if html is not None:
        late.write_night(html, cards=cards, language=chosen)
        click.echo(say("night.written", chosen, files=html))
    if pdf is not None:
        click.echo(say("night.printing", chosen, browser=find_browser()), err=True)
        late.write_night(pdf=pdf, cards=cards, language=chosen)
        click.echo(say("night.written", chosen, files=pdf))
