"""Each drill on 200 seeds against another computation, which takes its numbers out of the question's text.

`independent/NN.py` holds the computations of chapter NN, a function a drill, of the drill's name with underscores. They
carry out what the drill's formula says: a ring message by message, a pipeline in the simulator, a search in place of
an inverted formula, real tensors in place of bytes by heart. As they know nothing but the question, a question that
leaves out a number fails here too.
"""

import importlib.util
import math
import sys
from functools import cache
from pathlib import Path
from random import Random

import pytest

from parallel_lab.course.drills import listed, problems

HERE = Path(__file__).parent
SEEDS, EXACT = 200, 1e-6


@cache
def computations(chapter):
    file = HERE / "independent" / f"{chapter}.py"
    spec = importlib.util.spec_from_file_location(f"independent_{chapter}", file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(HERE))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(HERE))
    return module


@pytest.mark.parametrize("name", listed())
def test_another_computation_comes_to_the_same(name):
    module = computations(listed()[name])
    assert hasattr(module, name.replace("-", "_")), f"{module.__file__} has no function for {name}"
    compute = getattr(module, name.replace("-", "_"))
    for seed in range(SEEDS):
        drawn = problems()[name].draw(Random(seed))
        found = compute(drawn.question)
        near = min(getattr(compute, "within", EXACT), drawn.tolerance / 2)
        assert math.isclose(found, drawn.answer, rel_tol=near), f"seed {seed}: {found}, not {drawn.answer}: {drawn}"
