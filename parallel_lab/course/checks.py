"""`check("ring_all_reduce", fn)`: grades learner code by how it works, and `hint("ring_all_reduce")`.

The learner's function runs in ranks, never in the kernel; whatever it does there ends up in the report, and the cell
itself does not fail. How it is graded stands in `parallel_lab.grading`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from parallel_lab.course import progress
from parallel_lab.course.report import FAILED, NOT_RUN, PASSED, Hint, Report, Verdict
from parallel_lab.course.typed import named
from parallel_lab.grading.exercise import Check, Exercise
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.lab import Lab, NotStarted, Stuck, Wrong
from parallel_lab.grading.references import reference_in


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
        verdicts = [Verdict(title, FAILED, reference, "The exercise is to build it.") for title in exercise.tests]
    else:
        try:
            verdicts = _verdicts(exercise, Lab(exercise, fn, seeds))
        except NotStarted:
            return Report(
                exercise, said=f"{exercise.name} still raises NotImplementedError: replace it by your answer."
            )
    count = sum(v.state == PASSED for v in verdicts)
    said = progress.record_exercise(exercise.name, count, len(verdicts)) if save else ""
    return Report(exercise, tuple(verdicts), said, lambda: hint(exercise.name))


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
