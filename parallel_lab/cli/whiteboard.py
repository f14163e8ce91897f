"""`plab whiteboard`: a schedule, a layout or lines of code, answered in a terminal."""

import sys
from pathlib import Path

import click

from parallel_lab.cli import late, options
from parallel_lab.cli.run import parse_link
from parallel_lab.interview.words import language_of, say


@click.command(
    "whiteboard",
    epilog='Examples: plab whiteboard "0F0 0F1 0B0 0B1 / 1F0 1B0 1F1 1B1" --real, '
    'plab whiteboard "llama3-8b on 64 h100-ib: tp=8 pp=2 dp=4", plab whiteboard --file mine.py --ranks 2',
)
@click.argument("written", required=False)
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read what is written from a file."
)
@click.option("--ranks", default=4, show_default=True, help="How many processes carry out code.")
@click.option("--link", "link_text", metavar="LATENCY,BANDWIDTH", help="Emulate a slower network, e.g. 1ms,100MB.")
@click.option("--real", is_flag=True, help="Let real ranks carry out a schedule as well.")
@options.language
def command(
    written: str | None, file: Path | None, ranks: int, link_text: str | None, real: bool, language: str | None
) -> None:
    """Answer a schedule ("0F0 0F1 ..."), a layout ("MODEL on N CLUSTER: tp=8 ...") or lines of Python.

    The check of the plan and the simulator answer a schedule, the planner a layout, real ranks lines of code. Without
    WRITTEN and --file, lines are read until an empty one. Ends with 1 where it cannot be carried out.
    """
    own = language_of(language)
    if written is None:
        written = file.read_text(encoding="utf-8") if file else _lines(own)
    found = late.answered(written, ranks=ranks, link=parse_link(link_text), run=real, language=own)
    click.echo(found)
    click.get_current_context().exit(0 if found.passed else 1)


def _lines(language: str) -> str:
    """What is typed or piped in: until an empty line on a terminal, to the end otherwise."""
    if not sys.stdin.isatty():
        return sys.stdin.read()
    click.echo(late.Board(language=language))
    click.echo(f"\n{say('whiteboard.until', language)}")
    lines: list[str] = []
    while line := click.prompt("", prompt_suffix="| ", default="", show_default=False):
        lines.append(line)
    return "\n".join(lines)
