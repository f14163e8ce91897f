"""The command `plab`. Errors are one line, Ctrl-C ends with exit code 130.

Each command is a module of this folder, and is loaded when it is called: who asks for the version waits for no torch.
"""

from importlib import import_module
from typing import Any

import click

from parallel_lab import __version__
from parallel_lab.cli.folders import CommandError
from parallel_lab.course import progress
from parallel_lab.course.typed import UnknownName

INTERRUPTED = 130
COMMANDS = {  # by the names of their modules, with their lines in --help
    "start": "Copy the course into a folder of yours and open JupyterLab there.",
    "next": "Say what to solve next, where it stands and how to check it.",
    "check": "Check an exercise, or all of a notebook or chapter.",
    "watch": "Check a chapter on every save, one exercise after the other.",
    "hint": "Show the next hint for an exercise.",
    "solution": "Show how an exercise is solved, once you have tried.",
    "quiz": "Ask the self-check of a chapter.",
    "drill": "Ask a problem with fresh numbers, then derive its answer.",
    "ask": "Ask an interview question, then show the answer.",
    "review": "Ask what is due today, and keep how well it was known.",
    "prepare": "Plan the days until an interview, backwards from its date.",
    "interview": "Take a mock interview, and see what to do next.",
    "ladder": "Judge sentences as people say them, compute the number, run the evidence.",
    "whiteboard": "Answer a schedule, a layout or some lines of code.",
    "evidence": "Run the cell that measures the answer of a card.",
    "calibration": "Compare how sure you were with what came of it.",
    "progress": "Show what is solved and what comes next.",
    "list": "List the chapters with their exercises and questions.",
    "claims": "List what is often heard, with the verdict and where it is measured.",
    "path": "Show the course as a map: done, due, next.",
    "night": "Put the first pages of all chapters on one page, as HTML and PDF.",
    "anki": "Write the cards as a deck for Anki, in English and Chinese.",
    "badge": "Write a page that states what was solved.",
    "reset": "Put an empty exercise notebook back.",
    "update": "Fetch the newest version of the course.",
    "plan": "Choose how to lay out a model on a cluster, and say why.",
    "clinic": "Run a broken job, and judge who mends it.",
    "run": "Run a function of a file on real ranks.",
    "doctor": "Say what will run where, and why.",
}


class Plab(click.Group):
    """Loads a command when it is called, and ends it in one line where something is wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, from its module."""
        return import_module(f"parallel_lab.cli.{cmd_name}").command if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with their lines, which are whole and need no module."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("stopped", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has gone
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            raise click.ClickException(said) from None
        except (CommandError, UnknownName, TypeError, ValueError) as error:
            raise click.ClickException(str(error)) from None


@click.group(
    cls=Plab,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: plab next, plab check 02_collectives, plab run train.py:main --ranks 4 --link 1ms,100MB",
)
@click.version_option(__version__, prog_name="plab")
def main() -> None:
    """Parallel Lab at the command line: what comes next, what is solved, checks without a notebook, what runs here."""
    if warning := progress.unreadable():
        click.echo(warning, err=True)
