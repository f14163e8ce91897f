"""`check("ring_all_reduce", fn)`: grades learner code by how it works, and `hint("ring_all_reduce")`.

The learner's function runs in ranks, never in the kernel; whatever it does there ends up in the report, and the cell
itself does not fail. What the grading defends against stands in `course.lab`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from parallel_lab.course import progress
from parallel_lab.course.exercise import Exercise, title_of
from parallel_lab.course.exercises import EXERCISES
from parallel_lab.course.lab import Lab, NotStarted, Stuck, Wrong
from parallel_lab.course.rank_side import REFERENCES
from parallel_lab.course.report import FAILED, NOT_RUN, PASSED, Hint, Report, Verdict
from parallel_lab.course.sources import uses
from parallel_lab.course.typed import named

MEMORY_BYTES = 2 * 2**30


def check(name: str, fn: Any = None, *, seeds: Sequence[int] = (), save: bool = True) -> Report:
    """Grades `fn` as the answer to exercise `name` and records the result in the learner's progress.

    Args:
        name: of the exercise, which is also that of the function asked for.
        fn: the learner's function. Without it, or with a stub, the report says that the exercise was not started.
        seeds: to repeat an earlier check with the same inputs; its report names them.
        save: whether to record the result.

    Raises:
        UnknownName: there is no exercise `name`.
    """
    exercise = named("exercise", name, EXERCISES)
    if fn is None:
        return Report(exercise, said=f'Write {name} and pass it: check("{name}", {name}).')
    if not callable(fn):
        said = (
            f"check wants the function itself, and got {type(fn).__name__}: write check({name!r}, {name}), without ()."
        )
        return Report(None, said=said)
    return grade(exercise, fn, seeds, save)


def grade(exercise: Exercise, fn: Callable, seeds: Sequence[int] = (), save: bool = True) -> Report:
    """Runs all tests of `exercise` on `fn`; as `check`, for an exercise at hand."""
    if reference := reference_in(fn):
        advice = "The exercise is to build it from messages."
        verdicts = [Verdict(title_of(test), FAILED, reference, advice) for test in exercise.tests]
    else:
        try:
            verdicts = _verdicts(exercise, fn, Lab(seeds, exercise.timeout_s, MEMORY_BYTES))
        except NotStarted:
            return Report(
                exercise, said=f"{exercise.name} still raises NotImplementedError: replace it by your answer."
            )
    count = sum(v.state == PASSED for v in verdicts)
    said = progress.record_exercise(exercise.name, count, len(verdicts)) if save else ""
    return Report(exercise, tuple(verdicts), said, lambda: hint(exercise.name))


def reference_in(fn: Callable) -> str:
    """Which reference `fn` reaches for, in a sentence; empty if none."""
    return next((said for package in REFERENCES if (said := uses(fn, package))), "")


def _verdicts(exercise: Exercise, fn: Callable, lab: Lab) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for place, test in enumerate(exercise.tests):
        try:
            test(fn, lab)
            verdicts.append(Verdict(title_of(test), PASSED))
        except Stuck as wrong:  # every further run would wait as long
            verdicts.append(Verdict(title_of(test), FAILED, wrong.seen, wrong.advice))
            return verdicts + [Verdict(title_of(later), NOT_RUN) for later in exercise.tests[place + 1 :]]
        except Wrong as wrong:
            if any(wrong.seen == earlier.seen for earlier in verdicts):
                verdicts.append(Verdict(title_of(test), FAILED, "for the same reason"))
            else:
                verdicts.append(Verdict(title_of(test), FAILED, wrong.seen, wrong.advice, lab.last_seeds))
    return verdicts


def hint(name: str) -> Hint:
    """The next hint for exercise `name`; after the last one, the first again.

    Raises:
        UnknownName: there is no exercise `name`.
    """
    exercise = named("exercise", name, EXERCISES)
    shown = progress.read()["exercises"].get(name, {}).get("hints", 0)
    count = len(exercise.hints)
    place = shown % count
    said = progress.record_hint(name, shown + 1)
    text = f"Hint {place + 1} of {count}: {exercise.hints[place]}"
    return Hint(f"{text}\n\n{said}" if said else text)
