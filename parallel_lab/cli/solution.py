"""`plab solution`: how an exercise is solved, for who has tried."""

import ast
import re
import sys

import click
from pygments import highlight
from pygments.formatters import TerminalFormatter
from pygments.lexers import PythonLexer
from pygments.token import Comment

from parallel_lab.cli import late
from parallel_lab.cli.answers import tasks_named
from parallel_lab.course import progress, workspace
from parallel_lab.course.tasks import Task, cells
from parallel_lab.interview.words import say

COLORS = TerminalFormatter().colorscheme | {Comment: ("magenta", "magenta")}  # else gray, which is pale on white


@click.command("solution", epilog="Examples: plab solution ring_shift, plab solution ring_all_reduce --all")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Show it without a try.")
@click.option("--all", "whole", is_flag=True, help="Show all steps of an exercise that is not solved.")
def command(name: str, yes: bool, whole: bool) -> None:
    """Show the code that solves exercise NAME, once an answer of yours was checked.

    Of an exercise in steps it shows all of them, so until that is solved it wants --all. Your progress notes the look,
    and the page of plab badge tells whether it came before you had solved it.
    """
    for task in tasks_named(name):
        if not yes and (reason := _too_early(task, whole)):
            raise click.ClickException(f"{task.name}: {reason}")
        click.echo(_highlighted(_solution(task)))
        click.echo(progress.record_solution(task.name) or _noted(task), err=True)


def _too_early(task: Task, whole: bool) -> str:
    """Why the solution is not shown yet; empty if it is."""
    entry, steps = progress.read()["exercises"].get(task.name, {}), len(late.EXERCISES[task.name].steps)
    if not entry.get("checks"):
        return "try it first: once an answer of yours was checked, its solution is shown (--yes: now)"
    if steps and not whole and not progress.solved(entry):
        return (
            f"the solution shows all {steps} steps, and not all of them are solved. plab hint {task.name} gives a "
            "hint. To see it now, add --all; your progress notes that, and plab badge tells it."
        )
    return ""


def _noted(task: Task) -> str:
    """What the progress holds of the look, in the words of the badge."""
    first = progress.read()["exercises"][task.name]["solution_first"]
    when = say("badge.before" if first else "badge.after", "en")
    return f"{task.name}: noted in your progress. plab badge will say: {say('badge.solution', 'en')} {when}."


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
    return highlight(code, PythonLexer(), TerminalFormatter(colorscheme=COLORS)).rstrip("\n")
