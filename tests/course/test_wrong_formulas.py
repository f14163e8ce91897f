"""The known wrong formulas of each drill: recognized and named, and never taken for the answer."""

import math
from collections import Counter
from functools import cache
from random import Random

import pytest

from parallel_lab.course.drills import engine, listed, problems
from parallel_lab.course.practice import asked

SEEDS = 200


@cache
def drawn(name):
    return [problems()[name].draw(Random(seed)) for seed in range(SEEDS)]


@pytest.mark.parametrize("name", listed())
def test_a_wrong_formula_is_named_and_is_not_the_answer(name):
    for one in drawn(name):
        number = asked(one)
        assert number.feedback(f"{one.answer:.6g}") == (True, "")
        for value, said in one.wrong:
            assert not math.isclose(value, one.answer, rel_tol=one.tolerance)
            assert number.feedback(f"{value:.6g}") == (False, said)
            assert number.feedback(f"{value:.3g}")[0] is False, "nor as one rounds it"


@pytest.mark.parametrize("name", listed())
def test_each_drill_knows_wrong_formulas_and_each_of_them_occurs(name, monkeypatch):
    written = Counter()

    def spy(wrong, answer, tolerance):
        written.update({said for _, said in wrong})
        return told_apart(wrong, answer, tolerance)

    told_apart = engine._told_apart
    monkeypatch.setattr(engine, "_told_apart", spy)
    kept = Counter(said for seed in range(SEEDS) for _, said in problems()[name].draw(Random(seed)).wrong)
    assert len(written) >= 2
    assert {said: kept[said] for said in written if kept[said] < SEEDS / 20} == {}, "hardly ever told apart"


@pytest.mark.parametrize("name", listed())
def test_what_is_said_is_the_same_whatever_the_numbers_so_it_keeps_the_answer(name):
    spoken = {said for one in drawn(name) for _, said in one.wrong}
    assert len(spoken) <= 8
    assert all(said[0].isupper() and said.endswith(".") and len(said) <= 120 for said in spoken)
