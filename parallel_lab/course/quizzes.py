"""What is asked of the reader: `quiz("03")` after a chapter, `predict("03-bytes")` before a run shows it.

Questions and answers stand in `quizzes/NN_chapter.yaml` and nowhere in a notebook; those of a quiz also in Chinese,
under `zh`. A number's `mistakes` are what usual wrong formulas come to, each with what is said to who types that. In
JupyterLab a question is a small form; where no widgets run (a web view, a terminal) the saved cell shows the question
and says where to answer it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from parallel_lab.course import forms, page, progress
from parallel_lab.course.asked import KINDS, Choice, Number, Order, heading, option_lines, reads
from parallel_lab.course.spoken import hint, in_unit, lang, language_of, say, unit_in
from parallel_lab.course.typed import named

FOLDER = files("parallel_lab.course").joinpath("quizzes")
LATE = "A cell had shown the answer before, so it is no prediction"
_told: set[str] = set()  # predictions whose answer was shown in this kernel


@dataclass(frozen=True)
class Sheet:
    """What one file asks."""

    name: str  # `03_data_parallel`
    quiz: tuple[Number | Choice, ...]
    predict: Mapping[str, Any]  # a Number, Choice or Order by name, `03-bytes`


@cache
def sheets(language: str = "en") -> dict[str, Sheet]:
    """What is asked in each chapter, by its two digits. Predictions are a part of the chapter, and English."""
    found = sorted((file.name.removesuffix(".yaml"), file) for file in FOLDER.iterdir() if file.name.endswith(".yaml"))
    return {name[:2]: _sheet(name, yaml.safe_load(file.read_text(encoding="utf-8")), language) for name, file in found}


def _sheet(name: str, rows: Mapping[str, Any], language: str) -> Sheet:
    predicted = {key: _asked(row, "en") for key, row in rows["predict"].items()}
    return Sheet(name, tuple(_asked(row, language) for row in rows["quiz"]), predicted)


def _asked(row: Mapping[str, Any], language: str) -> Any:
    fields = {**row, **(row["zh"] if language == "zh" else {})}
    known = {"wrong": tuple(fields["mistakes"].items())} if "mistakes" in fields else {}
    own = {key: value for key, value in fields.items() if key not in ("kind", "zh", "mistakes")}
    return KINDS[row["kind"]](**own, **known)


@dataclass(frozen=True, repr=False)
class Quiz(page.Shown):
    """The self-check of a chapter, ready to be shown in a cell; see `quiz`."""

    name: str
    questions: tuple[Number | Choice, ...]
    language: str = "en"
    solved: set[int] = field(default_factory=set)

    def answer(self, place: int, given: str | None) -> tuple[bool, str]:
        """Feedback for what was picked or typed at question `place` (from 0); keeps what is right in the progress."""
        right, said = self.questions[place].feedback(given)
        if right:
            self.solved.add(place)
        share = len(self.solved) / len(self.questions)
        warning = progress.record_quiz(self.name, share, place if reads(self.questions[place], given) else None, right)
        return right, f"{hint(said, self.language)} {warning}".strip()

    def form(self) -> Any:
        """The widgets: for each question its text, an input, a button and room for feedback."""
        return forms.box(forms.html(page.STYLE), *(self._row(place) for place in range(len(self.questions))))

    def _row(self, place: int) -> Any:
        one, own, n = self.questions[place], self.language, place + 1

        def answer(given: str | None) -> page.Page:
            right, said = self.answer(place, given)
            return page.verdict(right, say("right" if right else "not-yet", own), said, lang(own))

        label = say("answer-to-question", own, n=n)
        words = say("answer", own, unit=unit_in(one.unit, own)).strip(), say("a-number", own)
        field = forms.text(*words, label) if isinstance(one, Number) else one.input(label)
        return forms.row([self._head(place)], field, say("check", own), say("check-question", own, n=n), answer)

    def _head(self, place: int) -> page.Part:
        """A question as it is read; a form adds the options by itself."""
        return self._line(f"{place + 1}. {in_unit(self.questions[place], self.language)}")

    def _line(self, text: str, kind: str = "") -> page.Part:
        return page.paragraph(text, kind, lang(self.language))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """The questions, and where to answer them."""
        parts = [self._line(say("self-check", self.language), "head")]
        for place, one in enumerate(self.questions):
            parts += [self._head(place), *option_lines(one)]
        where = say("quiz-where", self.language, chapter=self.name[:2])
        return page.Page(f"Self-check {self.name}", [*parts, self._line(where, "small")])


@dataclass(frozen=True, repr=False)
class Prediction(page.Shown):
    """A question that the next cells will answer, ready to be shown in a cell; see `predict`."""

    name: str
    asked: Any  # a Number, Choice or Order

    @property
    def kept(self) -> progress.Entry:
        """What was guessed, as it was typed, and whether it was `late`; empty if nothing was."""
        return progress.read()["predictions"].get(self.name, {})

    def answer(self, given: str | None) -> page.Page:
        """Keeps a guess, or says why it is none."""
        try:
            value = self.asked.read(given)
        except ValueError as error:
            return page.verdict(False, "Not kept", str(error))
        late = self.name in _told
        warning = progress.record_prediction(self.name, given, late)
        further = f"{LATE}." if late else "Run the next cells to see."
        said = f"You say {self.asked.words(value)}. {further} {warning}".strip()
        return page.Page("Your guess", [page.paragraph(said)], "note")

    def compared(self, value: Any) -> page.Page:
        """The guess beside what a run measured, and why it is so.

        Raises:
            TypeError: `value` is nothing that this prediction can be compared with.
        """
        asked = self.asked
        try:
            measured = asked.measured(value)
        except TypeError as error:
            raise TypeError(f'predict("{self.name}", measured): measured is {error}; it is {value!r}') from None
        shown = f"the cell shows {asked.words(measured)}"
        _told.add(self.name)
        if not self.kept:
            said = f"You wrote down no guess; {shown}: {asked.why}"
            return page.Page("Prediction", [page.paragraph(said)], "note")
        guess = asked.read(self.kept["guess"])
        right = asked.same(guess, measured)
        said = f"You said {asked.words(guess)}, {shown}: {asked.why}"
        if self.kept.get("late"):
            return page.Page("Prediction", [page.paragraph(f"{said} {LATE}.")], "note")
        return page.verdict(right, "As you predicted" if right else "Not as you predicted", said)

    def form(self) -> Any:
        """The widgets: the question, an input with the last guess, a button."""
        field = self.asked.input("Your guess", self.kept.get("guess"))
        head = [page.Part(page.STYLE, None), page.paragraph("Predict first", "head"), *heading(self.asked)]
        if isinstance(self.asked, Order):
            head += option_lines(self.asked)
        return forms.row(head, field, "Keep my guess", "Keep this guess; a cell below compares it", self.answer)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return forms.bundle(self.form(), self.as_page())

    def as_page(self) -> page.Page:
        """The question, and where to write down a guess."""
        where = "Decide before you read on. To write down your guess, run this cell in JupyterLab."
        parts = [page.paragraph("Predict first", "head"), *heading(self.asked), *option_lines(self.asked)]
        return page.Page(f"Prediction {self.name}", [*parts, page.paragraph(where, "small")])


def quiz(name: str, language: str | None = None) -> Quiz:
    """The self-check of a chapter, `"03"` or `"03_data_parallel"`.

    Args:
        name: of the chapter, or its two digits.
        language: `en` or `zh`; by default that of the environment.

    Raises:
        UnknownName: there is no such chapter; this KeyError names the nearest ones.
        ValueError: there is no such language.
    """
    own = language_of(language)
    sheet = named("self-check", str(name)[:2], sheets(own))
    return Quiz(sheet.name, sheet.quiz, own)


def predict(name: str, measured: Any = None) -> Prediction | page.Page:
    """Asks for a guess before a run; later, with what the run measured, compares it.

    Args:
        name: begins with the chapter's number, as `"03-bytes"`.
        measured: a number, an option or its place, or the options in the order that was measured.

    Raises:
        UnknownName: there is no such prediction; this KeyError names the nearest ones.
        TypeError: `measured` is of another kind than what was asked.
    """
    everything = {key: asked for sheet in sheets().values() for key, asked in sheet.predict.items()}
    one = Prediction(name, named("prediction", name, everything))
    return one if measured is None else one.compared(measured)
