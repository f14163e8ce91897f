"""What a check says: per test what was expected and what was seen, the score, and the next step."""

from collections.abc import Callable
from dataclasses import dataclass, field

from parallel_lab.course import page
from parallel_lab.grading.exercise import Exercise
from parallel_lab.grading.lab import Outcome
from parallel_lab.view import Timeline, draw

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
PRINTED = 500  # characters of what a rank printed
MARKS = {PASSED: "✓", FAILED: "✗", NOT_RUN: "–"}


@dataclass(frozen=True)
class Verdict:
    """One test of a check.

    Attributes:
        title: what is graded.
        state: `passed`, `failed` or `not run`.
        seen: what was expected and what was seen, at which world size; empty when passed.
        advice: where to look next; empty when passed.
        run: the failing run: its inputs, results, trace, and what its ranks printed; None where there is none.
    """

    title: str
    state: str
    seen: str = ""
    advice: str = ""
    run: Outcome | None = None


@dataclass(frozen=True)
class Hint:
    """One hint, as shown in a cell."""

    text: str

    def _repr_html_(self) -> str:
        return page.box([page.markdown(self.text)], "Hint", "note")

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Report:
    """The outcome of one check; a cell shows it as HTML, a terminal as text."""

    exercise: Exercise | None  # what was checked; None where the check could not begin
    verdicts: tuple[Verdict, ...] = ()  # one a test; empty when the exercise was not started
    said: str = ""  # what else the learner must know: not started, not a function, progress not saved
    next_hint: Callable[[], Hint] = field(default=lambda: Hint("There is no hint."), repr=False)  # gives the next hint

    @property
    def passed(self) -> bool:
        """Whether every test passed, and there was one."""
        return bool(self.verdicts) and all(v.state == PASSED for v in self.verdicts)

    @property
    def score(self) -> float:
        """The share of tests that passed, from 0 to 1."""
        return sum(v.state == PASSED for v in self.verdicts) / len(self.verdicts) if self.verdicts else 0.0

    @property
    def headline(self) -> str:
        """Name, result and score in one line."""
        name = self.exercise.name if self.exercise else "check"
        if not self.verdicts:
            return f"{name}: not started" if self.exercise else f"{name}: nothing was checked"
        count = sum(v.state == PASSED for v in self.verdicts)
        return f"{name}: {'solved' if self.passed else 'not yet'}, {count} of {len(self.verdicts)} tests passed"

    @property
    def run(self) -> Outcome | None:
        """The first run that failed, to look into: `inputs`, `results`, `trace`, `printed` by rank."""
        return next((v.run for v in self.verdicts if v.run), None)

    def draw(self) -> Timeline:
        """The first run that failed, over time.

        Raises:
            ValueError: there is none: no test failed, or the ranks came to no end.
        """
        if self.run is None:
            raise ValueError("there is no failed run to draw")
        return draw(self.run.trace)

    def hint(self) -> Hint:
        """The next hint; hints ask rather than tell, and come one at a time."""
        return self.next_hint()

    def _repr_html_(self) -> str:
        parts = [page.paragraph(self.headline, "head")]
        for v in self.verdicts:
            parts.append(page.paragraph(f"{MARKS[v.state]} {v.state}: {v.title}"))
            if v.seen:
                first, *rest = v.seen.splitlines()
                parts.append(page.paragraph(first))
                parts += [f"<pre>{page.escape(chr(10).join(rest))}</pre>"] if rest else []
            parts += [page.paragraph(text, "small") for text in (v.advice, *self._again(v)) if text]
        parts += [page.paragraph(self.said)] if self.said else []
        parts += [page.markdown(text) for text in self._closing()]
        look = "good" if self.passed else "bad" if self.verdicts else "note"
        return page.box(parts, self.headline, look)

    def __repr__(self) -> str:
        lines = [self.headline]
        for v in self.verdicts:
            lines.append(f"  {MARKS[v.state]} {v.state}: {v.title}")
            lines += [f"      {line}" for text in (v.seen, v.advice, *self._again(v)) for line in text.splitlines()]
        return "\n".join([*lines, *([self.said] if self.said else []), *self._closing()])

    def _closing(self) -> list[str]:
        if self.exercise is None:
            return []
        if self.passed:
            note = self.exercise.solution_note
            return [note, f"The reference solution: `solutions/{self.exercise.notebook}.ipynb`."]
        return [f'A hint: `hint("{self.exercise.name}")`.'] if self.verdicts else []

    def _again(self, verdict: Verdict) -> list[str]:
        """What the ranks of the failing run printed, and the call that repeats it."""
        if not (self.exercise and verdict.run):
            return []
        name, run = self.exercise.name, verdict.run
        printed = [f"rank {r} printed: {text.strip()[:PRINTED]}" for r, text in enumerate(run.printed) if text.strip()]
        return [*printed, f'The same case again: check("{name}", {name}, seeds={run.seeds}).draw()']
