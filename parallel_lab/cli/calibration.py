"""`plab calibration`: whether one is as right as one is sure."""

from pathlib import Path

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.interview.brier import calibration, drawing
from parallel_lab.interview.words import LANGUAGES, say


@click.command("calibration", epilog="Examples: plab calibration, plab calibration --chapter 09 --png curve.png")
@click.option("--chapter", help="Only of this chapter, as 09.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture of the curve here.")
@click.option("--language", type=click.Choice(LANGUAGES), help="en or zh; PARALLEL_LAB_LANGUAGE is the default.")
def command(chapter: str | None, png: Path | None, language: str | None) -> None:
    """Compare how sure you were with what came of it: Brier score and curve, by topic.

    Reviews, mock interviews and the ladder ask how sure you are before an answer.
    """
    found = calibration(chapter=chapter, language=language)
    click.echo(found)
    if png:
        if not found.answers:
            raise CommandError(say("calibration.none", found.language))
        drawing(found.answers).save(png)
