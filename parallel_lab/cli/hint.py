"""`plab hint`: the next hint for an exercise."""

import click

from parallel_lab.cli import late


@click.command("hint", epilog="Example: plab hint ring_all_reduce")
@click.argument("name")
def command(name: str) -> None:
    """Show the next hint for exercise NAME; after the last one, the first again. Steps that passed are left out."""
    click.echo(late.hint(name, keep=True))
