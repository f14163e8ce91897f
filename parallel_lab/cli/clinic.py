"""`plab clinic`: broken jobs to look into, and the judge of a diagnosis."""

import textwrap

import click

from parallel_lab.cli.answers import function_of
from parallel_lab.cli.folders import CommandError
from parallel_lab.clinic import CASES, CAUSES, diagnose, open_case
from parallel_lab.course import page


@click.command(
    "clinic",
    epilog='Examples: plab clinic 7, plab clinic 7 mine.py:job, plab clinic 7 mine.py:job --cause "slow link"',
)
@click.argument("case", required=False)
@click.argument("target", metavar="[FILE.py:FUNCTION]", required=False)
@click.option("--cause", help="What you take for the cause; your function is then judged as its mend.")
def command(case: str | None, target: str | None, cause: str | None) -> None:
    """Run broken job CASE on real ranks and show its chart; with a function, run that in place of the program.

    Without CASE, list the complaints; `plab clinic causes` lists the causes and how each shows.
    """
    if cause is not None and not target:
        number = case if case and case.isdecimal() else "CASE"
        raise CommandError(f"--cause needs your mended job as well: plab clinic {number} FILE.py:FUNCTION --cause ...")
    if case is None:
        rows = [(str(one.number), one.title) for one in CASES.values()]
        click.echo(page.table(("case", "complaint"), rows).text)
        return
    if case == "causes":
        for one in CAUSES.values():
            click.echo(f"{one.name} ({one.symptom}, chapter {one.chapter})")
            click.echo(textwrap.indent(textwrap.fill(one.signature, 96), "  "))
        return
    if not case.isdecimal():
        raise CommandError(f"{case!r} is no case: expected a number, as in `plab clinic 7`, or `plab clinic causes`")
    job = function_of(target) if target else None
    if cause is not None and job:
        diagnosis = diagnose(int(case), cause, job)
        click.echo(str(diagnosis))
        click.get_current_context().exit(0 if diagnosis.passed else 1)
    click.echo(str(open_case(int(case), job)))
