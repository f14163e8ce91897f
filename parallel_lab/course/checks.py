"""`check("ring_all_reduce", fn)`: grades learner code by how it works, and `hint("ring_all_reduce")`.

The learner's function runs in ranks, never in the kernel; whatever it does there ends up in the report, and the cell
itself does not fail. How it is graded stands in `parallel_lab.grading`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parallel_lab.course import page, progress, tasks
from parallel_lab.course.typed import named
from parallel_lab.grading.exercise import Check, Exercise
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.lab import Lab, NotStarted, Outcome, Stuck, Wrong
from parallel_lab.grading.references import reference_in
from parallel_lab.view import Timeline, draw

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
PRINTED = 500  # characters of what a rank printed
_SHOWN = Counter()  # hints of each exercise that this process has shown
MARKS = {PASSED: "✓", FAILED: "✗", NOT_RUN: "–"}


@dataclass(frozen=True)
class Verdict:
    """One test of a check."""

    title: str  # what is graded
    state: str  # `passed`, `failed` or `not run`
    seen: str = ""  # what was expected and what was seen, at which world size; empty when passed
    advice: str = ""  # where to look next; empty when passed
    run: Outcome | None = None  # the failing run: its inputs, results, trace, and what its ranks printed


@dataclass(frozen=True, repr=False)
class Report(page.Shown):
    """The outcome of one check: per test what was expected and what was seen, the score, and the next step."""

    exercise: Exercise
    verdicts: Sequence[Verdict] = ()  # one a test; empty when the exercise was not started
    said: str = ""  # what else the learner must know: not started, not a function, progress not saved
    step: int | None = None  # up to which step of the exercise it was checked; None for all of it

    @property
    def passed(self) -> bool:
        """Whether every test passed, and there was one."""
        return bool(self.verdicts) and self._count == len(self.verdicts)

    @property
    def score(self) -> float:
        """The share of the exercise's tests that passed, from 0 to 1; later steps than the one checked have not."""
        return self._count / len(self.exercise.tests)

    @property
    def _count(self) -> int:
        return sum(v.state == PASSED for v in self.verdicts)

    @property
    def headline(self) -> str:
        """Name, result and score in one line."""
        if not self.verdicts:
            return f"{self.exercise.name}: not started"
        result = "solved" if self.passed else "not yet"
        step = f", step {self.step} of {len(self.exercise.steps)}" if self.step else ""
        return f"{self.exercise.name}{step}: {result}, {self._count} of {len(self.verdicts)} tests passed"

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

    def hint(self) -> page.Page:
        """The next hint; hints ask rather than tell, and come one at a time."""
        return hint(self.exercise.name)

    def as_page(self) -> page.Page:
        """The headline, each test, and what to do next."""
        parts = [page.paragraph(self.headline, "head")]
        for v in self.verdicts:
            parts.append(page.paragraph(f"{MARKS[v.state]} {v.state}: {v.title}", indent=2))
            first, _, rest = v.seen.partition("\n")
            parts += [page.paragraph(first, indent=6)] if first else []
            parts += [page.paragraph(rest, indent=6, tag="pre")] if rest else []
            parts += [page.paragraph(text, "small", indent=6) for text in (v.advice, *self._again(v.run)) if text]
        parts += [page.paragraph(self.said)] if self.said else []
        look = "good" if self.passed else "bad" if self.verdicts else "note"
        return page.Page(self.headline, [*parts, *map(page.markdown, self._closing())], look)

    def _closing(self) -> list[str]:
        if self.score == 1:
            solution = f"The reference solution: `{self.exercise.solution}`."
            return [self.exercise.solution_note, solution]
        hint = [f'A hint: `hint("{self.exercise.name}")`.'] if self.verdicts and not self.passed else []
        return [*self._next_step(), *hint]

    def _next_step(self) -> list[str]:
        """The first step with a test that did not pass, or was not run: what stands then, and how to check it."""
        name, steps = self.exercise.name, self.exercise.steps
        done = next((place for place, v in enumerate(self.verdicts) if v.state != PASSED), len(self.verdicts))
        for number, step in enumerate(steps, 1):
            if done < step.tests:
                call = f'`check("{name}", {name}, step={number})`'
                return [f"Next is step {number} of {len(steps)}: {step.title} ({step.minutes} minutes, {call})."]
        return []

    def _again(self, run: Outcome | None) -> list[str]:
        """What the ranks of the failing run printed, and the call that repeats it."""
        if run is None:
            return []
        printed = [f"rank {r} printed: {text.strip()[:PRINTED]}" for r, text in enumerate(run.printed) if text.strip()]
        name = self.exercise.name
        return [*printed, f'The same case again: check("{name}", {name}, seeds={run.seeds}).draw()']


def check(
    name: str, fn: Any = None, step: int | None = None, *, seeds: Sequence[int] = (), save: bool = True
) -> Report:
    """Grades `fn` as the answer to exercise `name` and records the result in the learner's progress.

    Without `fn`, or with a stub, the report says that the exercise was not started. With `step`, only the tests of the
    exercise's steps up to this one run. `seeds` repeat an earlier check with the same inputs; its report names them.

    Raises:
        UnknownName: there is no exercise `name`.
        ValueError: the exercise has no such `step`.
    """
    exercise = named("exercise", name, EXERCISES)
    if fn is None:
        return Report(exercise, said=f'Write {name} and pass it: check("{name}", {name}).')
    if not callable(fn):
        kind = type(fn).__name__
        said = f"check wants the function itself, and got {kind}: write check({name!r}, {name}), without ()."
        return Report(exercise, said=said)
    return grade(exercise, fn, seeds, save, step)


def grade(
    exercise: Exercise, fn: Callable, seeds: Sequence[int] = (), save: bool = True, step: int | None = None
) -> Report:
    """Runs the tests of `exercise`, or of its steps up to `step`, on `fn`; as `check`, for an exercise at hand."""
    asked = exercise.through(step) if step else exercise
    if reference := reference_in(fn):
        verdicts = [Verdict(title, FAILED, reference, "The exercise is to build it.") for title in asked.tests]
    else:
        try:
            verdicts = _verdicts(asked, Lab(asked, fn, seeds))
        except NotStarted:
            said = f"{exercise.name} still raises NotImplementedError: replace it by your answer."
            return Report(exercise, said=said)
    report = Report(exercise, verdicts, step=step)
    if not save or (not report.passed and tasks.as_given(exercise.chapter, fn)):
        return report  # looking at what the course gives books nothing
    return replace(report, said=progress.record_exercise(exercise.name, report.score))


def _verdicts(exercise: Exercise, lab: Lab) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for place, (title, checks) in enumerate(exercise.tests.items()):
        try:
            _run(checks, lab)
            verdicts.append(Verdict(title, PASSED))
        except Stuck as wrong:  # every further run would wait as long
            verdicts.append(Verdict(title, FAILED, wrong.seen, wrong.advice))
            return verdicts + [Verdict(later, NOT_RUN) for later in list(exercise.tests)[place + 1 :]]
        except Wrong as wrong:
            if any(wrong.seen == earlier.seen for earlier in verdicts):
                verdicts.append(Verdict(title, FAILED, "for the same reason"))
            else:
                verdicts.append(Verdict(title, FAILED, wrong.seen, wrong.advice, lab.last))
    return verdicts


def _run(checks: Sequence[Check], lab: Lab) -> None:
    for case, graders in checks:
        outcome = lab.run(case)
        for grader in graders if case.get("changed") else (*graders, *lab.exercise.always):
            grader(outcome)


def hint(name: str, keep: bool = False) -> page.Page:
    """The next hint for exercise `name`; after the last one, the first again.

    Which ones were seen is kept in the progress once an answer was checked, or at once with `keep`.

    Raises:
        UnknownName: there is no exercise `name`.
    """
    hints = named("exercise", name, EXERCISES).hints
    entry = progress.read()["exercises"].get(name, {})
    shown = max(entry.get("hints", 0), _SHOWN[name])
    place = shown % len(hints)
    _SHOWN[name] = shown + 1
    said = progress.record_hint(name, shown + 1) if keep or "checks" in entry else ""
    text = f"Hint {place + 1} of {len(hints)}: {hints[place]}"
    return page.Page("Hint", [page.markdown(f"{text}\n\n{said}".strip())], "note")
