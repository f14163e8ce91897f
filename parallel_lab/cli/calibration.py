"""`plab calibration`: whether one is as right as one is sure."""

from pathlib import Path

import click

from parallel_lab.cli import late, options
from parallel_lab.cli.folders import CommandError
from parallel_lab.interview.words import say


@click.command("calibration", epilog="Examples: plab calibration, plab calibration --chapter 09 --png curve.png")
@click.option("--chapter", help="Only of this chapter, as 09.")
@click.option("--png", type=options.NewFile(), help="Write the picture of the curve here.")
@options.language
def command(chapter: str | None, png: Path | None, language: str | None) -> None:
    """Compare how sure you were with what came of it: Brier score and curve, by topic.

    Reviews, mock interviews and the ladder ask how sure you are before an answer.
    """
    found = late.calibration(chapter=chapter, language=language)
    click.echo(found)
    if png:
        if not found.answers:
            raise CommandError(say("calibration.none", found.language))
        late.drawing(found.answers).save(png)
