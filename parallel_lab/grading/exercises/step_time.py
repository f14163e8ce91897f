"""Chapter 22: the step time of a published run, rebuilt from its facts."""

import math
from collections.abc import Callable

from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import name
from parallel_lab.grading.rebuilt import facts
from parallel_lab.planner.by_hand import by_hand

CLOSE = 1e-9
AGAIN = "Recomputation does the forward pass of the layers once more: how many passes of that size does a step have?"
HEAD = "The output layer multiplies too, with the whole vocabulary: once forward, and twice that backward."
WHOLE_RING = "In a ring each rank sends 2 (n - 1)/n of the tensor, not twice the whole."
PASSES = "Each pass over a layer has two all-reduces. How many passes are there, backward and recomputation included?"
OF_TOTAL = "(p - 1)/(m + p - 1) is a share of the whole step. How many times the busy time is the bubble?"
ALL_RANKS = "How many microbatches does one pipeline see, if dp of them share the batch?"
WHOLE_MODEL = "A rank sums the gradients of what it holds. By which degrees is the model cut?"

Mistake = Callable[[dict, dict], float]


def _forward_left_out(facts: dict, right: dict) -> float:
    return by_hand({**facts, "recompute": False})["compute_s"]


def _no_output(facts: dict, right: dict) -> float:
    return by_hand({**facts, "vocab": 0})["compute_s"]


def _twice(facts: dict, right: dict) -> float:
    return right["tensor_s"] * facts["tp"] / (facts["tp"] - 1)


def _no_recomputed_pass(facts: dict, right: dict) -> float:
    return by_hand({**facts, "recompute": False})["tensor_s"]


def _of_total(facts: dict, right: dict) -> float:
    busy_s = right["compute_s"] + right["tensor_s"]
    return busy_s * right["bubble_s"] / (busy_s + right["bubble_s"])


def _batch_undivided(facts: dict, right: dict) -> float:
    return right["bubble_s"] / facts["dp"]


def _uncut(facts: dict, right: dict) -> float:
    return by_hand({**facts, "pp": 1, "tp": 1})["data_s"]


OF_COMPUTE = {AGAIN: _forward_left_out, HEAD: _no_output}
OF_TENSOR = {WHOLE_RING: _twice, PASSES: _no_recomputed_pass}
OF_BUBBLE = {OF_TOTAL: _of_total, ALL_RANKS: _batch_undivided}
OF_DATA = {WHOLE_MODEL: _uncut}


@grader
def says(outcome: Outcome, mistakes: dict[str, dict[str, Mistake]]) -> None:
    """The items of the result are right; what a usual mistake gives gets its advice."""
    (given,), got, right = outcome.inputs[0], outcome.results[0], outcome.expected[0]
    at = f"tp {given['tp']}, pp {given['pp']}, dp {given['dp']}, a batch of {given['batch']}"
    if type(got) is not dict or not mistakes.keys() <= got.keys():
        raise Wrong(f"{at}: got {name(got)}, expected a dict with {', '.join(mistakes)}")
    for item, usual in mistakes.items():
        seconds = _number(got[item], f"{at}: {item}")
        if not math.isclose(seconds, right[item], rel_tol=CLOSE, abs_tol=CLOSE):
            made = [advice for advice, wrong in usual.items() if _is(seconds, given, right, wrong)]
            seen = f"{at}: {item} is {seconds:.6g} s, expected {right[item]:.6g} s"
            raise Wrong(seen, made[0] if made else "Take one GPU, and write down the units of every factor.")


def _number(value: object, at: str) -> float:
    """The value as a plain number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Wrong(f"{at} is {name(value)}, expected a number of seconds")
    return float(value)


def _is(seconds: float, given: dict, right: dict, mistake: Mistake) -> bool:
    try:
        return math.isclose(seconds, mistake(given, right), rel_tol=CLOSE)
    except ZeroDivisionError:  # of one rank
        return False


ITEMS = {"compute_s": OF_COMPUTE, "tensor_s": OF_TENSOR, "bubble_s": OF_BUBBLE, "data_s": OF_DATA, "step_s": {}}
FIRST, SECOND = dict(list(ITEMS.items())[:1]), dict(list(ITEMS.items())[:2])

EXERCISE = Exercise(
    name="step_time",
    given=facts,
    expected=lambda outcome: [by_hand(*given) for given in outcome.inputs],
    device="cpu",
    tests={
        # Step 1
        "Arithmetic, where layers are recomputed": on(1, says(FIRST)),
        "Arithmetic, where nothing is": on(1, says(FIRST), recompute=False),
        # Step 2
        "All-reduces inside the layers": on(1, says(SECOND)),
        "All-reduces without recomputation, and without tensor parallelism": on(1, says(SECOND), recompute=False)
        + on(1, says(SECOND), tp=1),
        # Step 3
        "The whole step of an interleaved run": on(1, says(ITEMS)),
        "Megatron-Turing NLG on 280, 350 and 420 nodes": [
            check for dp in (8, 10, 12) for check in on(1, says(ITEMS), published=dp)
        ],
    },
)
