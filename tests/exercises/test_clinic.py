"""`clinic`: a neighbor of the cause, a factor, equal copies, an empty cache, half a norm; answers of other kinds."""

import inspect
import sys

import nbformat
import pytest
from grading import ROOT, assert_ends_a_step, assert_found_out, by_value, solutions, stubs

from parallel_lab.clinic.cases import CASES, cache, drift, early, resume, tied

by_value(__name__)
NAME = "clinic"
clinic = solutions(NAME)[NAME]


def with_line(fn, old, new):
    """`fn` with one piece of its source replaced."""
    source = inspect.getsource(fn)
    assert old in source
    space = dict(vars(sys.modules[fn.__module__]), __name__=__name__)
    exec(source.replace(old, new, 1), space)
    return space[fn.__name__]


def answering(number, job, cause=""):
    """An answer that differs from the solution in one case."""
    cause = cause or CASES[number].cause
    return lambda asked: (cause, job) if asked == number else clinic(asked)


EQUAL = "optimizer.step()\n        [dist.broadcast(p.data, 0) for p in params]"
CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        answering(12, resume.mended, "same order each epoch"),
        0,
        "the cause is not same order each epoch\n.*would show so",
    ),
    (
        answering(6, with_line(early.job, "flat = torch", "flat = 1.5 * torch")),
        1,
        "away from what one process comes to",
    ),
    (answering(11, with_line(drift.job, "optimizer.step()", EQUAL)), 2, "away from .* comes to\n.*The guard is there"),
    (answering(7, with_line(cache.job, "report(", "cache.clear()\n        report(")), 3, "has encoded 64 samples"),
    (answering(5, with_line(tied.job, "dist.all_reduce(squares)", "squares /= 2")), 4, "reports norm .*, expected"),
    (lambda number: "slow rank", 0, r"TypeError: clinic\(12\) returned 'slow rank': expected a cause and a function"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    as_given = stubs(NAME)[NAME]
    assert_ends_a_step(NAME, 1, lambda asked: (clinic if asked == 12 else as_given)(asked), "there is no cause '\\?'")


def test_the_stub_has_the_programs_of_the_cases():
    cells = nbformat.read(ROOT / "exercises/23_clinic.ipynb", as_version=4).cells
    for number in (12, 6, 11, 7, 5):
        body = inspect.getsource(CASES[number].job).split("\n", 1)[1].rstrip()
        assert any(body in cell.source and f'CAUSE_{number} = "?"' in cell.source for cell in cells)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (("slow rank", None), r"returned 'slow rank' and None: expected \(a name, a function\)"),
        ((7, resume.mended), "returned 7 and an object of class function: expected"),
        (("data repeated after resume", lambda saved, samples, report: None), "rank 0 returned None\n.*A job returns"),
        (None, r"clinic\(12\) returned None: expected a cause and a function"),
    ],
    ids=["no job", "no name", "no model", "nothing"],
)
def test_an_answer_of_another_kind_gets_a_sentence(answer, said):
    assert_found_out(NAME, lambda number: answer, 0, said)
