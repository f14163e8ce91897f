"""`plab start`: the course in a folder of one's own, and JupyterLab at its first notebook."""

from pathlib import Path

import click

from parallel_lab.cli.folders import CommandError
from parallel_lab.course import opening, workspace
from parallel_lab.course.update import bring


@click.command("start", epilog="Examples: plab start, plab start ~/parallel-lab --port 8899")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--port", default="8888", show_default=True, help="Where JupyterLab listens.")
@click.option(
    "--ip", default=opening.LOOPBACK, show_default=True, help="0.0.0.0 in a container; the token protects it."
)
@click.option("--no-lab", is_flag=True, help="Copy what is new, and open nothing.")
def command(folder: Path | None, port: str, ip: str, no_lab: bool) -> None:
    """Copy the course into FOLDER/work and open JupyterLab there.

    FOLDER is where you began before, else a new folder parallel-lab; in a clone of the course it is the clone. After an
    upgrade, the same command brings what is new: a file that you changed stays as it is, and the new version is laid
    beside it as NAME.new.ipynb.
    """
    work = _work(folder)
    if not no_lab and (trouble := opening.trouble_with(port)):
        raise CommandError(trouble)
    for line in bring(workspace.root(), work):
        click.echo(line)
    if no_lab:
        click.echo(f"The course is in {work}")
        return
    click.echo(f"Opening {opening.FIRST}. If no browser opens, open the address below yourself. Ctrl-C stops.")
    opening.open_lab(port, work.parent, ip)


def _work(folder: Path | None) -> Path:
    """The learner's folder that is meant.

    Raises:
        CommandError: no course is at hand, or another folder is named in a clone.
    """
    course, begun = workspace.root(), workspace.work()
    if not (course / "notebooks").is_dir():
        raise CommandError("the course is not at hand: this package was installed without its notebooks")
    if course != workspace.CARRIED:
        if folder and folder.resolve() != course:
            raise CommandError(f"in a clone of the course you work in {begun}: leave FOLDER out")
        return begun
    return folder.resolve() / "work" if folder else begun
