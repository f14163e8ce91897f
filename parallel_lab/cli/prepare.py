"""`plab prepare`: a plan for the date of an interview."""

from pathlib import Path

import click

from parallel_lab.cli import late, options
from parallel_lab.interview.schedule import forget
from parallel_lab.interview.words import language_of, say


@click.command("prepare", epilog="Example: plab prepare --date 2027-03-14 --minutes 40")
@click.option("--date", "day", metavar="YYYY-MM-DD", help="Of the interview; without, show the plan that is kept.")
@click.option("--minutes", type=int, default=40, show_default=True, help="That there are a day.")
@options.language
@click.option("--picture", type=options.NewFile(), help="Write the picture to this PNG file.")
@click.option("--forget", "dropped", is_flag=True, help="Forget the date.")
def command(day: str | None, minutes: int, language: str | None, picture: Path | None, dropped: bool) -> None:
    """Order chapters, cards and exercises backwards from the date of an interview, and keep the plan.

    It says which day each chapter must be begun by, and what there is no time for. Reviews follow it: nothing is put
    off beyond the date, and what would be recalled least on that date comes first.
    """
    if dropped:
        warning = forget()
        click.echo(warning or say("schedule.dropped", language_of(language)))
        return
    one = late.prepare(day, minutes, language)
    click.echo(repr(one))
    if picture:
        picture.write_bytes(one.draw().png)
        click.echo(str(picture))
