"""`plab solution`: how an exercise is solved, for who has tried."""

import ast
import re
import sys

import click
from pygments import highlight
from pygments.formatters import TerminalFormatter
from pygments.lexers import PythonLexer

from parallel_lab.cli.answers import tasks_named
from parallel_lab.course import progress, workspace
from parallel_lab.course.tasks import Task, cells


@click.command("solution", epilog="Example: plab solution ring_all_reduce")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Show it without a try.")
def command(name: str, yes: bool) -> None:
    """Show the code that solves exercise NAME, once an answer of yours was checked."""
    for task in tasks_named(name):
        if yes or progress.read()["exercises"].get(task.name, {}).get("checks"):
            click.echo(_highlighted(_solution(task)))
            if warning := progress.record_solution(task.name):
                click.echo(warning, err=True)
        else:
            said = f"{task.name}: try it first: once an answer of yours was checked, its solution is shown (--yes: now)"
            raise click.ClickException(said)


def _solution(task: Task) -> str:
    """The code, without the marks that cut it out of the exercise."""
    if task.gap:
        text = (workspace.root() / "solutions" / "gaps" / f"{task.notebook}.py").read_text(encoding="utf-8")
        found = [one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == task.name]
        return "\n".join(ast.get_source_segment(text, one) or "" for one in found)
    file = workspace.root() / "solutions" / f"{task.notebook}.ipynb"
    sources = ["".join(cell["source"]) for cell in cells(file) if cell["cell_type"] == "code"]
    code = next(source for source in sources if re.search(rf"^def {task.name}\(", source, re.MULTILINE))
    return re.sub(r"^ *(### (BEGIN|END) SOLUTION|#\|.*)\n?", "", code, flags=re.MULTILINE).strip()


def _highlighted(code: str) -> str:
    """The code in colors if a person reads it."""
    if not sys.stdout.isatty():
        return code
    return highlight(code, PythonLexer(), TerminalFormatter()).rstrip("\n")
