"""`plab claims`: the sentences that are often heard, judged."""

import click

from parallel_lab.course.claims import claims


@click.command("claims", epilog="Example: plab claims")
def command() -> None:
    """List the claims that the course puts to the test, each with its verdict, why, and where it is measured."""
    click.echo(claims())
