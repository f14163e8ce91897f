"""`plab ask`: an interview question, its answer on request, and how well it was known."""

import click

from parallel_lab.cli import options
from parallel_lab.course import page, questions
from parallel_lab.interview.atoms import atoms_of
from parallel_lab.interview.words import language_of, say

WORDS = {"y": "knew", "half": "partly", "n": "missed"}


@click.command("ask", epilog="Examples: plab ask E5, plab ask E5 --atoms")
@click.argument("name")
@click.option("--atoms", "cut", is_flag=True, help="List the atoms as well: what to know of the card, piece by piece.")
@options.language
def command(name: str, cut: bool, language: str | None) -> None:
    """Ask the question of card NAME; show the answer after Enter, then note whether you knew it.

    Atoms are what plab review asks of the card; the language is theirs, as the card itself is in both.
    """
    words = language_of(language)
    card = questions.ask(name)
    whole, bare = card.as_page(), card.question_page()
    click.echo(bare)
    if card.sections:
        click.prompt("\nAnswer aloud, then press Enter", default="", show_default=False, prompt_suffix=" ")
        click.echo(page.Page(whole.label, whole.parts[len(bare.parts) - 1 :]))
        if cut:
            click.echo(f"\n{_atoms(card.question.id, words)}")
        known = click.prompt("\ndid you know it?", type=click.Choice(list(WORDS), case_sensitive=False))
        click.echo(f"noted: {WORDS[known]}. {questions.record(card.question.id, WORDS[known])}".rstrip())


def _atoms(name: str, language: str) -> page.Page:
    """The atoms of a card, but for those that its own sections show: the question itself and the follow-ups."""
    lines = []
    for atom in atoms_of(name):
        if atom.kind not in ("definition", "follow-up"):
            verdict = f"**{say(f'anki.verdict-{atom.verdict}', language)}** " if atom.verdict else ""
            kind = say(f"anki.{atom.kind}", language)
            lines.append(f"- {kind} ({atom.key}): {atom.asked(language)}\n    - {verdict}{atom.answered(language)}")
    return page.Page("", [page.paragraph(say("ask.atoms", language), "head"), page.markdown("\n".join(lines))])
