"""`plab anki`: the cards and their atoms as a deck for Anki, or as a table; reviews back from Anki, if asked."""

from pathlib import Path

import click

from parallel_lab.cli import options
from parallel_lab.interview.anki import write_deck, write_table
from parallel_lab.interview.anki_reviews import import_reviews
from parallel_lab.interview.notes import BOTH, CHOICES
from parallel_lab.trace.units import format_bytes


@click.command("anki", epilog="Examples: plab anki, plab anki --chapter 09 --language zh -o pipeline.apkg")
@click.option("-o", "--output", type=options.NewFile(), help="Where to write the file.")
@click.option("--csv", "as_table", is_flag=True, help="Write a table instead, for other programs.")
@click.option("--chapter", help="The cards of one chapter only, as 09.")
@click.option("--language", default=BOTH, show_default=True, type=click.Choice(CHOICES), help="What is asked in.")
@click.option("--cards-only", is_flag=True, help="Leave the decks of atoms and terms out.")
@click.option(
    "--import-reviews",
    "exported",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the reviews of an .apkg or .colpkg that Anki exported into your progress; writes no deck.",
)
def command(
    output: Path | None, as_table: bool, chapter: str | None, language: str, cards_only: bool, exported: Path | None
) -> None:
    """Write every card as a deck for Anki, in English and in Chinese, with formulas, pictures and what was measured.

    Import the file in Anki. A later deck changes the words and keeps your history.
    """
    if exported is not None:
        counted, keys = import_reviews(exported)
        click.echo(f"{exported}: {counted} reviews of {keys} atoms are in your progress now.")
        return
    file = output or Path(f"parallel-lab{f'-{chapter.zfill(2)}' if chapter else ''}.{'csv' if as_table else 'apkg'}")
    click.echo("Reading the cards and the executed chapters ...", err=True)
    write = write_table if as_table else write_deck
    written = write(file, chapter=chapter, language=language, with_atoms=not cards_only)
    click.echo(f"{file}: {written} notes, {format_bytes(file.stat().st_size)}.")
