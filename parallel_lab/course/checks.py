"""`check("ring_all_reduce", fn)`: grades learner code by how it works, and `hint("ring_all_reduce")`.

The learner's function runs in ranks, never in the kernel; whatever it does there ends up in the report, and the cell
itself does not fail. How it is graded stands in `parallel_lab.grading`.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parallel_lab.course import cells, chapters, page, progress, tasks
from parallel_lab.course.solutions import solution_of
from parallel_lab.course.typed import named
from parallel_lab.course.under_way import said_while_it_lasts
from parallel_lab.grading.exercise import Check, Exercise
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.gaps.forms import FunctionGap
from parallel_lab.grading.lab import Lab, NotStarted, Outcome, Stuck, Wrong
from parallel_lab.grading.rank_side import PROCESSOR_S, Case
from parallel_lab.grading.references import reference_in
from parallel_lab.grading.trial import Trial, case_of
from parallel_lab.plan import COMPUTE
from parallel_lab.runtime.kernel.output import on_a_terminal
from parallel_lab.trace import Trace
from parallel_lab.view import Timeline, draw

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
PRINTED = 20  # lines that a rank printed last
FOR_TWO = "At 2 ranks this test passes: what in your answer holds for two ranks alone?"
ONLY_LAST = "Only the last step has a reference to draw"
AFTER_YOURS = "A reference is drawn beside an answer of your own"
_SHOWN = Counter()  # hints of each exercise that this process has shown
_SKIPPED = Counter()  # hints of each exercise that it has left out, as their step was solved
ENDLESS = f"A rank that computes without an end is stopped after {PROCESSOR_S} s of its processor."
NBGRADER = "NBGRADER_EXECUTION"  # set while nbgrader runs an answer of somebody
_GRID = re.compile(r"\S {2,}\S+ {2,}\S")  # a line in columns
MARKS = {PASSED: "✓", FAILED: "✗", NOT_RUN: "–"}


cells.listen()


@dataclass(frozen=True)
class Verdict:
    """One test of a check."""

    title: str  # what is graded
    state: str  # `passed`, `failed` or `not run`
    seen: str = ""  # what was expected and what was seen, at which world size; empty when passed
    advice: str = ""  # where to look next; empty when passed
    trial: Trial | None = None  # the case that failed, to run again
    run: Outcome | None = None  # the failing run, if its ranks came to an end
    printed: Sequence[str] = ()  # what each rank printed in it, or in the last one if none failed
    reason: str = ""  # the same for the same mistake
    trace: Trace | None = None  # what its ranks did, also where they came to no end


@dataclass(frozen=True, repr=False)
class Report(page.Shown):
    """The outcome of one check: per test what was expected and what was seen, the score, and the next step."""

    exercise: Exercise
    verdicts: Sequence[Verdict] = ()  # one a test; empty when the exercise was not started
    said: str = ""  # what else the learner must know: not started, not a function, progress not saved
    graded: str = ""  # the cell that was graded, and when it ran
    step: int | None = None  # up to which step of the exercise it was checked; None for all of it
    untouched: bool = False  # whether what failed is what the course gave

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
    def failed(self) -> Verdict | None:
        """The first test that failed on a case: its `trial`, `run` and what was `printed`."""
        return next((v for v in self.verdicts if v.trial and v.state == FAILED), None)

    @property
    def run(self) -> Outcome | None:
        """The run that failed first, to look into: `inputs`, `results`, `trace`; None if its ranks came to no end."""
        return self.failed.run if self.failed else None

    def draw(self, reference: bool = False) -> Timeline:
        """The first run that failed, over time; with `reference`, the reference solution's run of the same case below.

        What the course gave has none until it is changed, for a right run shows the answer; and the check of a step
        before the last one has none, for the solution would show the steps that follow.

        Raises:
            ValueError: there is none: no test failed, or nothing was recorded.
            FileNotFoundError: the reference solution is not at hand.
        """
        failed = self.failed
        if failed is None or failed.trial is None:
            raise ValueError("there is no failed run to draw")
        yours = failed.trace
        title = f"{self.exercise.name} {failed.trial.case.at}"
        if not reference or self._no_reference:
            if yours is None:
                more = self._no_reference or "draw(reference=True) draws a right one"
                raise ValueError(f"nothing was recorded of this run. {more}")
            return draw(yours, title=f"{title}: yours. {self._no_reference}" if reference else title)
        right = failed.trial.run(solution_of(self.exercise), echo=False).trace
        if yours is None:
            return draw(right, title=f"{title}: the reference (nothing was recorded of yours)")
        names = [f"{whose} {rank}" for whose in ("yours", "ref.") for rank in range(right.ranks)]
        return draw(_one_above_the_other(yours, right), title=f"{title}: yours, and the reference below", names=names)

    @property
    def _no_reference(self) -> str:
        """Why no reference is drawn beside this run; empty if one is."""
        if self.untouched:
            return AFTER_YOURS
        return ONLY_LAST if self.step is not None and self.step < len(self.exercise.steps) else ""

    def hint(self) -> page.Page:
        """The next hint; hints ask rather than tell, and come one at a time."""
        return hint(self.exercise.name)

    def __repr__(self) -> str:
        """The page in words; to nbgrader, while it gives marks, the number of tests that passed."""
        return str(self._count) if NBGRADER in os.environ else super().__repr__()

    def as_page(self) -> page.Page:
        """The headline, each test with its details, what was printed, and what to do next."""
        parts = [page.paragraph(self.headline, "head")]
        parts += [page.paragraph(f"Graded: {self.graded}.", "small")] if self.graded and self.verdicts else []
        parts += map(_test, self.verdicts)
        parts += [*self._printed(), *([page.paragraph(self.said)] if self.said else [])]
        look = "good" if self.passed else "bad" if self.verdicts else "note"
        return page.Page(self.headline, [*parts, *map(page.markdown, self._closing()), *self._next()], look)

    def _printed(self) -> list[page.Part]:
        """The last lines of each rank in the first failing run; after a pass those of the last run, folded."""
        shown = self.failed or next((v for v in reversed(self.verdicts) if v.printed), None)
        lines = [
            f"[rank {rank}] {line}" for rank, text in enumerate(shown.printed if shown else ()) for line in _last(text)
        ]
        if not lines or shown is None or shown.trial is None:
            return []
        said, text = f"Printed {shown.trial.case.at}, the last {PRINTED} lines of each rank:", "\n".join(lines)
        inside = page.paragraph(text, tag="pre")
        return [page.folded(said, inside)] if self.passed else [page.paragraph(said), inside]

    def _next(self) -> list[page.Part]:
        """After a pass, the next exercise as a link."""
        comes = chapters.next_exercise(passed=self.exercise.name) if self.score == 1 else None
        if comes is None:
            return []
        words = f"{comes.name}: {comes.title} ({comes.level}, {comes.minutes} min)"
        link = page.markdown(f"Next: [{words}]({chapters.link_to(comes)})").html
        return [page.Part(link, f"Next: {words}")]

    def _closing(self) -> list[str]:
        if self.score == 1:
            solution = f"The reference solution: `{self.exercise.solution}`."
            return [self.exercise.solution_note, solution]
        call = cells.typed_here(f'hint("{self.exercise.name}")')
        hint = [f"A hint: `{call}`."] if self.verdicts and not self.passed else []
        return [*self._next_step(), *self._to_draw(), *hint]

    def _to_draw(self) -> list[str]:
        """How one sees what the ranks sent each other in the run that failed."""
        trace, name = self.failed.trace if self.failed else None, self.exercise.name
        if not trace or all(s.lane == COMPUTE for s in trace.spans):
            return []
        call = f'check("{name}", {name}{f", step={self.step}" if self.step else ""})'
        right = (
            f". {self._no_reference}." if self._no_reference else "; `.draw(reference=True)` has a right run below it."
        )
        return [f"To see what the ranks did: `{call}.draw()`{right}"]

    def _next_step(self) -> list[str]:
        """The step after the one that was checked; or the first with a test that failed, unless just it was checked.

        A step may have passed earlier, so a failure is named by its step and never called the next one.
        """
        name, steps = self.exercise.name, self.exercise.steps
        done = next((place for place, v in enumerate(self.verdicts) if v.state != PASSED), len(self.verdicts))
        number = next((number for number, step in enumerate(steps, 1) if done < step.tests), None)
        if number is None or (number == self.step and not self.passed):
            return []
        step, call = steps[number - 1], f'`check("{name}", {name}, step={number})`'
        if self.passed or not self.verdicts:
            return [f"Next is step {number} of {len(steps)}: {step.title} ({step.minutes} minutes, {call})."]
        title = f"The first test that failed belongs to step {number} of {len(steps)}: {step.title}."
        return [f"{title} To check no further than that: {call}."]


def _test(verdict: Verdict) -> page.Part:
    """A test: its title, and below it and smaller what was seen, where to look, and how to have the case again."""
    first, _, rest = verdict.seen.partition("\n")
    parts = [page.paragraph(f"{MARKS[verdict.state]} {verdict.state}: {verdict.title}", indent=2)]
    parts += [page.paragraph(first, indent=6)] if first else []
    parts += [_further(rest)] if rest else []
    parts += [page.paragraph(verdict.advice, indent=6)] if verdict.advice else []
    # The message about a function without ranks has its call already.
    if verdict.trial and verdict.state == FAILED and not isinstance(verdict.trial.exercise, FunctionGap):
        parts.append(page.paragraph(f"The case: {verdict.trial.words}.", "small", indent=6))
        parts.append(page.paragraph(f"To look into it: {cells.typed_here(verdict.trial.call)}", "small", indent=6))
    html = "\n".join(part.html for part in parts)
    return page.Part(f'<div class="plab-test">\n{html}\n</div>', "\n".join(part.text or "" for part in parts))


def _further(text: str) -> page.Part:
    """The lines below the first: long ones wrap, but where some stand in columns, as those of a schedule."""
    part = page.paragraph(text, indent=6, tag="pre")
    wraps = '<pre style="white-space: pre-wrap; overflow-wrap: anywhere">'
    return part if _GRID.search(text) else part._replace(html=part.html.replace("<pre>", wraps, 1))


def _last(text: str) -> list[str]:
    """The last lines that a rank printed."""
    lines = on_a_terminal(text.rstrip("\n")) if text.strip() else []
    return [f"... ({len(lines) - PRINTED} lines before)", *lines[-PRINTED:]] if len(lines) > PRINTED else lines


def _one_above_the_other(first: Trace, second: Trace) -> Trace:
    """One trace in which the ranks of `second` follow those of `first`, both from time 0."""
    spans = []
    for trace, above in ((first, 0), (second, first.ranks)):
        start_s = min((s.start_s for s in trace.spans), default=0.0)
        for s in trace.spans:
            peer = s.peer + above if s.peer >= 0 else s.peer
            times = {"start_s": s.start_s - start_s, "end_s": s.end_s - start_s}
            spans.append(s._replace(rank=s.rank + above, peer=peer, **times))
    return Trace(first.ranks + second.ranks, tuple(spans))


def case(name: str, *, ranks: int, seed: int, number: int | None = None, **settings: Any) -> Trial:
    """A case of exercise `name`: its `inputs` and what is `expected`, by rank; and `run(fn)` runs an answer on it.

    A report names the call for each case that failed in ranks. `run` shows what they print and gives what `launch`
    does, so `draw(case(...).run(fn))` draws it. Other ranks, seeds and `settings`, such as `shape`, make cases of one's
    own. Where a report cannot write the settings down, it gives the `number` of the case in the exercise.

    Raises:
        UnknownName: there is no exercise `name`.
    """
    exercise = named("exercise", name, EXERCISES)
    return Trial(exercise, case_of(exercise, ranks, settings, number), seed)


def check(name: str, fn: Any = None, step: int | None = None, *, seed: int | None = None, save: bool = True) -> Report:
    """Grades `fn` as the answer to exercise `name` and records the result in the learner's progress.

    Without `fn`, or with a stub, the report says that the exercise was not started. With `step`, only the tests of the
    exercise's steps up to this one run. `seed` repeats an earlier check with the same inputs; its report names it.

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
    return grade(exercise, fn, seed, save, step)


def grade(
    exercise: Exercise, fn: Callable, seed: int | None = None, save: bool = True, step: int | None = None
) -> Report:
    """Runs the tests of `exercise`, or of its steps up to `step`, on `fn`; as `check`, for an exercise at hand."""
    asked, older = exercise.through(step) if step else exercise, cells.failed_since(exercise.name, fn)
    if reference := reference_in(fn):
        verdicts = [Verdict(title, FAILED, reference, "The exercise is to build it.") for title in asked.tests]
    else:
        try:
            with said_while_it_lasts(lambda seconds: f"{exercise.name}: checked for {seconds:.0f} s. {ENDLESS}"):
                verdicts = _verdicts(asked, Lab(asked, fn, seed))
        except NotStarted:
            said = f"{exercise.name} still raises NotImplementedError: replace it by your answer."
            return Report(exercise, said=f"{said} {older}".strip())
    report = Report(exercise, verdicts, older, cells.defined_in(fn), step)
    report = replace(report, untouched=not report.passed and tasks.as_given(exercise.chapter, fn))
    if not save or NBGRADER in os.environ or report.untouched:
        return report  # looking at what the course gives books nothing
    steps = sum(all(v.state == PASSED for v in verdicts[: s.tests]) for s in exercise.steps if s.tests <= len(verdicts))
    warning = progress.record_exercise(exercise.name, report.score, failed=not report.passed, steps=steps)
    return replace(report, said=f"{older} {warning}".strip())


def _verdicts(exercise: Exercise, lab: Lab) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for place, (title, checks) in enumerate(exercise.tests.items()):
        try:
            _run(checks, lab)
            verdicts.append(Verdict(title, PASSED, trial=lab.trial, printed=lab.printed))
        except Wrong as wrong:
            trace = lab.last.trace if lab.last else wrong.trace
            seen = wrong.seen, wrong.advice, lab.trial, lab.last, lab.printed, wrong.reason, trace
            verdict = Verdict(title, FAILED, *seen)
            if any(wrong.reason == earlier.reason for earlier in verdicts):
                at = f", {lab.trial.case.at}" if lab.trial else ""
                verdict = Verdict(title, FAILED, f"for the same reason{at}", reason=wrong.reason)
            verdicts.append(verdict)
            if isinstance(wrong, Stuck):  # every further run would wait as long
                return verdicts + [Verdict(later, NOT_RUN) for later in list(exercise.tests)[place + 1 :]]
    return verdicts


def _run(checks: Sequence[Check], lab: Lab) -> None:
    passed: list[Case] = []
    for case, graders in checks:
        try:
            outcome = lab.run(case)
            for grader in graders if case.get("changed") else (*graders, *lab.exercise.always):
                grader(outcome)
        except Wrong as wrong:
            if case.ranks > 2 and replace(case, ranks=2) in passed and FOR_TWO not in wrong.advice:
                wrong.advice = f"{wrong.advice} {FOR_TWO}".strip()
            raise
        passed.append(case)


def hint(name: str, keep: bool = False) -> page.Page:
    """The next hint for exercise `name`, in the order of its steps; after the last one, the first again.

    Those of a step that has passed are left out, and do not count as seen. Which ones were seen is kept in the progress
    once an answer was checked, or at once with `keep`.

    Raises:
        UnknownName: there is no exercise `name`.
    """
    exercise = named("exercise", name, EXERCISES)
    hints, steps = exercise.hints, exercise.hint_steps
    entry = progress.read()["exercises"].get(name, {})
    shown = max(entry.get("hints", 0), _SHOWN[name])
    skipped = max(entry.get("skipped", 0), _SKIPPED[name])
    passed = 0 if progress.solved(entry) else entry.get("steps", 0)
    while 0 < (steps[(shown + skipped) % len(hints)] or 0) <= passed < max(step or 0 for step in steps):
        skipped += 1
    place = (shown + skipped) % len(hints)
    _SHOWN[name], _SKIPPED[name] = shown + 1, skipped
    said = progress.record_hint(name, shown + 1, skipped) if keep or "checks" in entry else ""
    step = f", step {steps[place]}" if steps[place] else ""
    text = f"Hint {place + 1} of {len(hints)}{step}: {hints[place]}"
    return page.Page("Hint", [page.markdown(f"{text}\n\n{said}".strip())], "note")
