"""`layout_memory`: tables forgotten, heads that share keys, everything sharded at once, and microbatches under way."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions

from parallel_lab.grading import laid_out
from parallel_lab.planner import Model, Scheme, memory

by_value(__name__)
NAME = "layout_memory"
layout_memory = solutions(NAME)[NAME]


def no_table(model, layout):
    return laid_out.held(model, layout, {"no table"})


def all_heads(model, layout):
    return laid_out.held(model, layout, {"all heads"})


def two_matrices(model, layout):
    return laid_out.held(model, layout, {"two matrices"})


def all_sharded(model, layout):
    return laid_out.held(model, layout, {"all sharded"})


def all_under_way(model, layout):
    return laid_out.held(model, layout, {"all under way"})


def whole_activations(model, layout):
    return laid_out.held(model, layout, {"whole activations"})


CHEATS = [  # (answer, the test that sees through it, what it says)
    (no_table, 0, r"weights of stage 0 is .* B, expected 4,540,858,368 B\n.*That leaves out the tables"),
    (all_heads, 0, "a key for each query head"),
    (two_matrices, 0, "has three matrices"),
    (all_sharded, 2, "ZeRO shards stage by stage"),
    (all_under_way, 3, "activations of stage .*\n.*as GPipe does"),
    (whole_activations, 3, "That is not cut"),
]


@pytest.mark.parametrize(("cheat", "place", "said"), [pytest.param(*case, id=case[0].__name__) for case in CHEATS])
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


OTHERS = [
    (lambda model, layout: None, "expected a list with a dict for each of 4 stages"),
    (lambda model, layout: [{}], "got 1 stages, expected 4"),
    (lambda model, layout: [(1, 2, 3)] * layout["pp"], r"stage 0 is \[1, 2, 3\], expected a dict"),
    (lambda model, layout: [{}] * layout["pp"], "stage 0 has no 'weights'"),
    (lambda model, layout: [{"weights": "much"}] * layout["pp"], "expected a number of bytes"),
    (lambda model, layout: [{"weights": float("nan")}] * layout["pp"], "is nan B, expected"),
]


def test_answers_of_other_kinds_get_a_sentence():
    for answer, said in OTHERS:
        assert_found_out(NAME, answer, 0, said)


def with_numpy(model, layout):
    """Right, in other types of numbers and dicts."""
    return tuple(
        Counter({kind: np.float64(size) for kind, size in each.items()}) for each in layout_memory(model, layout)
    )


def test_other_right_answers_pass():
    assert_passes(NAME, with_numpy)


def without_sharding(model, layout):
    return layout_memory(model, layout | {"zero": 0})


def as_the_first(model, layout):
    return laid_out.held(model, layout, {"as the first"})


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, without_sharding, "of stage 0 is .*\n.*ZeRO shards stage by stage")
    assert_ends_a_step(NAME, 2, as_the_first, "activations of stage 1 .*\n.*turns back at once")


@pytest.mark.parametrize("changes", [{}, {"zero": 1}, {"zero": 3, "recompute": 1}, {"microbatches": 2}])
def test_what_is_graded_is_what_the_planner_says(changes):
    """Beside the norms, the planner's head inputs, and what attention keeps for each head."""
    model, layout = laid_out.LLAMA3_70B, laid_out.BY_HAND | changes
    sizes: Any = model
    shape = Model(**sizes)
    axes: Any = {axis: layout[axis] for axis in ("pp", "dp", "tp", "zero", "microbatch")}
    scheme = dataclasses.replace(Scheme(**axes), recompute="full" if layout["recompute"] else "none")
    for stage, mine in enumerate(laid_out.held(model, layout)):
        terms = memory(shape, scheme, layout["microbatches"] * layout["dp"], rank=stage)
        for kind, size in mine.items():
            whole = terms[kind].value - terms[kind].get("head's inputs")
            assert size == pytest.approx(whole, rel=2e-3)
