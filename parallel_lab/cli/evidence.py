"""`plab evidence`: the cell that measures the answer of a card, run here."""

import click

from parallel_lab.cli import options
from parallel_lab.interview.proofs import evidence


@click.command("evidence", epilog="Examples: plab evidence E5, plab evidence E5 --language zh")
@click.argument("name")
@options.language
def command(name: str, language: str | None) -> None:
    """Run the cell that measures the answer of card NAME, with the cells that it needs and no others."""
    found = evidence(name, language)
    click.echo(found)
    click.get_current_context().exit(1 if found.failed else 0)
