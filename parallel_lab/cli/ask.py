"""`plab ask`: an interview question, its answer on request, and how well it was known."""

import click

from parallel_lab.course import page, questions

WORDS = {"y": "knew", "half": "partly", "n": "missed"}


@click.command("ask", epilog="Example: plab ask E5")
@click.argument("name")
def command(name: str) -> None:
    """Ask the question of card NAME; show the answer after Enter, then note whether you knew it."""
    card = questions.ask(name)
    whole, bare = card.as_page(), card.question_page()
    click.echo(bare)
    if card.sections:
        click.prompt("\nAnswer aloud, then press Enter", default="", show_default=False, prompt_suffix=" ")
        click.echo(page.Page(whole.label, whole.parts[len(bare.parts) - 1 :]))
        known = click.prompt("\ndid you know it?", type=click.Choice(list(WORDS), case_sensitive=False))
        click.echo(f"noted: {WORDS[known]}. {questions.record(card.question.id, WORDS[known])}".rstrip())
