"""`plab run`: a function of a file on real ranks."""

import click

from parallel_lab.cli import late
from parallel_lab.cli.answers import function_of
from parallel_lab.cli.folders import CommandError
from parallel_lab.course import page
from parallel_lab.course.typed import parse_number
from parallel_lab.network import Link


@click.command("run", epilog="Examples: plab run train.py:main, plab run train.py:main --ranks 8 --link 50us,1GB")
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option("--ranks", default=4, show_default=True, help="How many processes.")
@click.option("--link", "link_text", metavar="LATENCY,BANDWIDTH", help="Emulate a slower network, e.g. 1ms,100MB.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds until ranks that hang are ended.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def command(target: str, ranks: int, link_text: str | None, timeout: float, device: str) -> None:
    """Run a function of a file on real ranks and show what it returned and sent."""
    link = parse_link(link_text)
    try:
        run = late.launch(function_of(target), ranks=ranks, link=link, timeout=timeout, device=device)
    except late.LaunchError as error:
        raise CommandError(str(error)) from None
    for rank, result in enumerate(run.results):
        if result is not None:
            click.echo(f"rank {rank} returned {result!r}")
    rows = [(str(r), f"{run.trace.bytes_sent(r):,}", f"{run.trace.messages(r):,}") for r in range(ranks)]
    click.echo(page.table(("rank", "bytes sent", "messages"), rows).text)


def parse_link(text: str | None) -> Link | None:
    """`1ms,100MB` as a Link of one millisecond and 100 MB a second; None for none.

    Raises:
        ValueError: `text` cannot be read.
    """
    if text is None:
        return None
    try:
        latency, bandwidth = text.split(",")
        return Link(parse_number(latency, "s"), parse_number(bandwidth.removesuffix("/s"), "B"))
    except ValueError:
        raise ValueError(f"--link {text!r}: expected LATENCY,BANDWIDTH, for example 1ms,100MB") from None
