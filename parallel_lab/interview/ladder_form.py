"""`ladder()`: half-truths to judge in a cell, then a number to compute, then the cell that measures it, run there."""

from dataclasses import dataclass
from typing import Any

from parallel_lab.course import forms, page
from parallel_lab.interview.asking import CONFIDENCES, in_language, sure
from parallel_lab.interview.atoms import VERDICTS
from parallel_lab.interview.board import sentence
from parallel_lab.interview.climbing import COUNT, Climb, climb
from parallel_lab.interview.words import lang, say


@dataclass(frozen=True, repr=False)
class Ladder(page.Shown):
    """The ladder, ready to be shown in a cell; see `ladder`."""

    climb: Climb

    def form(self) -> Any:
        """The widgets: a sentence, verdict and confidence; then a number; then the evidence and the next rung."""
        place = forms.box()
        _Rungs(self.climb, place).ask()
        return forms.box(forms.parts(self._head(), style=True), place)

    def _head(self) -> list[page.Part]:
        own = self.climb.language
        title = page.paragraph(say("ladder.title", own), "head", lang(own))
        return [title, page.paragraph(say("ladder.rules", own), "small", lang(own))]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """The sentences, without verdicts, and where to answer."""
        own = self.climb.language
        texts = [f"{n}. {rung.sentence.asked(own)}" for n, rung in enumerate(self.climb.rungs, 1)]
        where = page.paragraph(say("common.where", own, command="plab ladder"), "small", lang(own))
        parts = [*self._head(), in_language("\n".join(texts), lang(own)), where]
        return page.Page(say("ladder.title", own), parts)


class _Rungs:
    """The widgets of one rung after the other, in the box `place`."""

    def __init__(self, of: Climb, place: Any) -> None:
        self.climb, self.place, self.own = of, place, of.language

    def ask(self) -> None:
        """Shows the sentence with its choices."""
        of, own = self.climb, self.own
        count = say("ladder.count", own, n=of.place + 1, count=len(of.rungs))
        claim = in_language(of.rung.sentence.asked(own), lang(own))
        lines = [say(f"review.{word}", own) for word in VERDICTS]
        verdict = forms.radio(lines, VERDICTS, say("ladder.ask", own))
        shares = [f"{share:.0%}" for share in CONFIDENCES]
        confidence = forms.radio(shares, shares, say("review.sure", own), side_by_side=True)
        said, more = forms.html(), forms.box()
        how = forms.parts([sentence("review.sure", own)])

        def check() -> None:
            if verdict.value is None:
                said.value = forms.status(page.Page("", [sentence("review.no-option", own)], "note"))
                return
            said.value = forms.status(of.judge(verdict.value, sure(confidence.value)))
            verdict.disabled = confidence.disabled = button.disabled = True
            more.children = [self.number()] if of.rung.number else [self.end()]

        button = forms.button(say("common.check", own), say("ladder.check-tip", own), check)
        head = forms.parts([page.paragraph(count, "small", lang(own)), claim])
        self.place.children = [head, verdict, how, confidence, button, said, more]

    def number(self) -> Any:
        """The number of the card, to compute."""
        of, own, atom = self.climb, self.own, self.climb.rung.number
        assert atom
        unit = f" ({atom.unit})" if atom.unit else ""
        asked = in_language(f"{say('ladder.number', own)} {atom.asked(own)}{unit}", lang(own))
        field = forms.text(
            f"{say('common.answer', own)} {atom.unit}".strip(), say("ladder.a-number", own), atom.asked(own)
        )
        said, more = forms.html(), forms.box()

        def close(shown: page.Page) -> None:
            said.value = forms.status(shown)
            field.disabled = check.disabled = show.disabled = True
            more.children = [self.end()]

        def answer() -> None:
            over, shown = of.answer(field.value)
            said.value = forms.status(shown)
            if over:
                close(shown)

        check = forms.button(say("common.check", own), say("ladder.number-tip", own), answer)
        forms.on_enter(field, answer)
        show = forms.button(say("common.show", own), say("ladder.show-tip", own), lambda: close(of.show_number()))
        return forms.box(forms.parts([asked]), field, forms.box(check, show, side_by_side=True), said, more)

    def end(self) -> Any:
        """The evidence, and what comes next."""
        of, own, shown = self.climb, self.own, forms.html()

        def run() -> None:
            def told(line: str) -> None:
                shown.value = forms.status(page.Page(line, [page.paragraph(line, lang=lang(own))], "note"))

            try:
                shown.value = forms.status(of.evidence(told).as_page())
            except (OSError, ValueError) as wrong:  # the chapter is not there
                shown.value = forms.status(page.Page("", [page.paragraph(str(wrong))], "bad"))

        def go() -> None:
            of.step()
            if of.over:
                self.place.children = [forms.html(forms.status(of.finish()))]
            else:
                self.ask()

        evidence = forms.button(say("ladder.run", own), say("ladder.run-tip", own), run)
        following = forms.button(say("common.next", own), say("ladder.next-tip", own), go)
        return forms.box(forms.box(evidence, following, side_by_side=True), shown)


def ladder(
    count: int = COUNT, *, chapter: str | None = None, seed: int | None = None, language: str | None = None
) -> Ladder:
    """Half-truths to judge: right, half right or wrong? Then the number is predicted, then the evidence is run.

    Args:
        count: how many sentences.
        chapter: only of this one, as `"09"`.
        seed: the same sentences for the same seed and progress; fresh ones without.
        language: `en` or `zh`; that of the environment by default.

    Raises:
        ValueError: there is no such chapter or language, or nothing to judge.
    """
    return Ladder(climb(count, chapter=chapter, seed=seed, language=language))
