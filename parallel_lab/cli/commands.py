"""The commands of `plab`. Errors are one line, Ctrl-C ends with exit code 130."""

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from parallel_lab import __version__
from parallel_lab.cli import doctor, folders
from parallel_lab.course import page, progress, update, workspace
from parallel_lab.course.chapters import TITLES
from parallel_lab.course.checks import grade
from parallel_lab.course.questions import card, index
from parallel_lab.course.typed import parse_number
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.runtime import LaunchError, Link, launch

INTERRUPTED = 130
_EXPECTED = (folders.CommandError, LaunchError, OSError, TypeError, ValueError)


class Plab(click.Group):
    """Ends each command in one line where something is wrong, and with exit code 130 on Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("stopped", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has gone
        except _EXPECTED as error:
            raise click.ClickException(str(error)) from None


@click.group(
    cls=Plab,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: plab doctor, plab check 02_collectives, plab run train.py:main --ranks 4 --link 1ms,100MB",
)
@click.version_option(__version__, prog_name="plab")
def main() -> None:
    """Parallel Lab at the command line: what runs here, what is solved, and checks without a notebook."""


@main.command("doctor", epilog="Example: plab doctor")
def doctor_command() -> None:
    """Say what will run where, and why. Exit code 1 if something is missing."""
    found = doctor.findings()
    click.echo("\n".join(map(str, found)))
    sys.exit(not all(finding.well for finding in found))


@main.command("list", epilog="Example: plab list 02")
@click.argument("chapter", required=False)
def list_command(chapter: str | None) -> None:
    """List chapters with their exercises and questions; of one CHAPTER only, if given."""
    entries = progress.read()["exercises"]
    wanted = [one for one in TITLES if chapter is None or one == chapter.zfill(2)]
    if not wanted:
        raise folders.CommandError(f"there is no chapter {chapter!r}; there are {min(TITLES)} to {max(TITLES)}")
    for one in wanted:
        click.echo(f"{one} {TITLES[one]}")
        for e in EXERCISES.values():
            if e.chapter == one:
                state = progress.state(entries.get(e.name, {}))
                click.echo(f"  exercise  {e.name:<18} {e.title} ({e.level}, {e.minutes} min)  [{state}]")
        for q in index().values():
            if q.chapter == one:
                click.echo(f"  {q.kind:<9} {q.id:<18} {q.ask}  [{card(q).status or 'no card yet'}]")


@main.command("check", epilog="Examples: plab check 02_collectives, plab check 02 my_answers.ipynb")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--no-save", is_flag=True, help="Leave the progress as it is.")
def check_command(name: str, file: Path | None, no_save: bool) -> None:
    """Check the exercises of notebook NAME without opening it; exit code 1 unless all are solved.

    Takes the functions out of FILE (default: work/exercises/NAME.ipynb) and runs their checks. Nothing else in the
    notebook runs.
    """
    given = folders.notebook_named(name, "exercises")
    file = file or next(one for one in (folders.learners(given), given) if one.exists())
    stem = Path(name).name.removesuffix(".ipynb")
    wanted = [e for e in EXERCISES.values() if e.notebook == stem or e.chapter == stem.split("_")[0].zfill(2)]
    if not wanted:
        raise folders.CommandError(f"there are no exercises for {name!r}")
    found = folders.functions_in(file)
    solved = True
    for exercise in wanted:
        fn = found.get(exercise.name)
        report = grade(exercise, fn, save=not no_save) if callable(fn) else None
        click.echo(report or f"{exercise.name}: {file.name} does not define it")
        solved = solved and report is not None and report.passed
    sys.exit(not solved)


@main.command("progress", epilog="Example: plab progress")
def progress_command() -> None:
    """Show what is solved."""
    click.echo(progress.progress_table())


@main.command("reset", epilog="Examples: plab reset 02, plab reset 02_collectives --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset_command(name: str, yes: bool) -> None:
    """Put the empty exercise notebook NAME back; what you wrote is kept beside it as .bak1."""
    given = folders.notebook_named(name, "exercises")
    target = folders.learners(given)
    if target.is_file():
        if not yes:
            click.confirm(f"Replace {target} by the empty exercise?", abort=True)
        kept = progress.free(f"{target}.bak")
        shutil.copy2(target, kept)
        click.echo(f"your notebook is kept as {kept.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    progress.replace(target, given.read_text(encoding="utf-8"))
    click.echo(f"{target.name} is empty again; close and reopen it in JupyterLab")


@main.command("update", epilog="Example: plab update")
def update_command() -> None:
    """Fetch the newest version of the course and bring it into work/. What you changed there stays."""
    missed = None
    try:
        click.echo(update.pull(workspace.root()))
    except update.CannotPull as error:
        missed = error
    for line in update.bring(workspace.root()):
        click.echo(line)
    if missed:
        raise click.ClickException(str(missed))


@main.command("run", epilog="Examples: plab run train.py:main, plab run train.py:main --ranks 8 --link 50us,1GB")
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option("--ranks", default=4, show_default=True, help="How many processes.")
@click.option("--link", "link_text", metavar="LATENCY,BANDWIDTH", help="Emulate a slower network, e.g. 1ms,100MB.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds until ranks that hang are ended.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def run_command(target: str, ranks: int, link_text: str | None, timeout: float, device: str) -> None:
    """Run a function of a file on real ranks and show what it returned and sent."""
    link = parse_link(link_text)
    run = launch(folders.function_of(target), ranks=ranks, link=link, timeout=timeout, device=device)
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
