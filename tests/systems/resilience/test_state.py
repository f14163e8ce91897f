"""What a bit-exact resume needs: each part is left out in turn, and the first step that differs is found."""

import io
import random

import numpy as np
import pytest
import torch
from torch import nn

from parallel_lab import launch
from parallel_lab.systems.resilience import State, forgotten, random_states, set_random_states
from parallel_lab.systems.resilience.state import PARTS, bytes_of

pytestmark = pytest.mark.usefixtures("by_value")

FIRST = {
    "nothing": None,  # a whole checkpoint: bit by bit to the end
    "weights": 0,
    "optimizer": 1,  # the first loss needs the weights alone
    "scheduler": 2,  # the optimizer has the rate of its first step; the next comes from the start of the schedule
    "scaler": 1,  # the scale is at its start again: the first step is skipped
    "position": 0,
    "torch": 0,
    "numpy": 0,
    "python": 0,
}


def test_what_is_forgotten_shows_at_a_known_step():
    """On one rank and on two; rank 0's generators on all ranks are right on a single one."""
    one, two = (launch(forgotten.differences, ranks=ranks) for ranks in (1, 2))
    assert one.results == [FIRST | {"generators of rank 0": None}]
    assert two.results == [FIRST | {"generators of rank 0": 0}] * 2


def test_only_what_is_asked_for_is_tried():
    assert launch(forgotten.differences, ("optimizer", "cuda"), steps=3, at=4, ranks=1)[0] == {"optimizer": 1}


def test_a_state_goes_through_a_file_and_brings_back_all_generators():
    model = nn.Linear(2, 2)
    state = State({"weights": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1)})
    memory = io.BytesIO()
    torch.save(state.save(12), memory)
    drawn = torch.rand(3), np.random.random(3), np.random.standard_normal(), random.random()
    saved = torch.load(io.BytesIO(memory.getvalue()), weights_only=True)
    assert set(saved) == set(PARTS) - {"scheduler", "scaler", "cuda"}
    with torch.no_grad():
        model.weight.zero_()
    assert state.load(saved) == 12 and model.weight.any()
    again = torch.rand(3), np.random.random(3), np.random.standard_normal(), random.random()
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert state.load(saved, without=("position",)) == 0
    assert bytes_of(saved) == sum(p.nbytes for p in model.parameters()) + bytes_of(random_states())


def test_numpy_keeps_the_second_of_two_normal_draws():
    """Its legacy generator draws normal numbers in pairs: the state has the one that is still to come."""
    np.random.seed(1)
    np.random.standard_normal()
    states = random_states()
    expected = np.random.standard_normal(3)
    set_random_states(states)
    assert np.array_equal(np.random.standard_normal(3), expected)


def test_a_part_that_no_run_has_is_refused():
    with pytest.raises(ValueError, match=r"no part of a run is called \['model'\]"):
        State({"model": nn.Linear(1, 1)})
