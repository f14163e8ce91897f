"""A term's sum is checked when it is made, and its tree says why it is what it is."""

import pytest

from parallel_lab.planner import Term, largest, total
from parallel_lab.planner.terms import named, text_of


def test_a_tree_shows_formula_source_and_parts():
    scores = Term("scores", 3e9, "B", "5 a s^2 b", "Korthikanti et al. 2022, equation 1")
    memory = total("memory", [Term("weights", 2e9, "B", "2 N"), total("activations", [scores])])
    assert memory.tree().splitlines() == [
        "memory: 5.00 GB  = the sum of",
        "  weights: 2.00 GB  = 2 N",
        "  activations: 3.00 GB  = the sum of",
        "    scores: 3.00 GB  = 5 a s^2 b  [Korthikanti et al. 2022, equation 1]",
    ]
    assert memory.tree(depth=0) == "memory: 5.00 GB  = the sum of"
    assert memory["activations/scores"] is scores and memory.find("scores") is scores
    assert memory.get("scores") == 3e9 and memory.get("logits") == 0
    assert [part.name for part in memory] == ["weights", "activations"]
    with pytest.raises(KeyError, match="memory has no part 'logits'; it has weights, activations"):
        memory["logits"]
    assert named(scores, "pairs").name == "pairs"


def test_what_does_not_add_up_cannot_be_made():
    one, two = Term("one", 1.0, "s"), Term("two", 2.0, "s")
    with pytest.raises(ValueError, match="step is 4, and the sum of its parts is 3"):
        Term("step", 4.0, "s", parts=(one, two))
    with pytest.raises(ValueError, match="two parts of one name"):
        total("step", [one, one])
    with pytest.raises(ValueError, match="in another unit"):
        Term("step", 3.0, "B", parts=(one, two))
    with pytest.raises(ValueError, match="is no number"):
        Term("step", float("nan"))
    assert largest("step", [one, two]).value == 2
    assert Term("flops", 7.0, parts=(one, two), rule="other").value == 7


def test_parts_that_are_zero_are_left_out():
    assert total("step", [Term("one", 1.0, "s"), Term("two", 0.0, "s")]).parts == (Term("one", 1.0, "s"),)
    assert total("step", []).value == 0


def test_units_are_read_as_people_read_them():
    assert text_of(0.5, "share") == "50.0 %" and text_of(1.5e-3, "s") == "1.50 ms"
    assert text_of(312e12, "FLOP/s") == "312 TFLOP/s" and text_of(12, "") == "12" and text_of(4096, "B") == "4,096 B"
