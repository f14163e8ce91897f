"""Chapter 21: five layouts of one model, ranked by a step's time under memory (Narayanan et al. 2021, section 3)."""

from math import isclose
from typing import Any

from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import each_rank
from parallel_lab.grading.gaps.forms import written
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.ranked import Sizes, five_layouts, held_bytes

CLOSE = 1e-6
DRAWS = 4  # one a rank
BUBBLE = "Those are the m microbatches alone. How many passes does the first stage wait until the last one is done?"
FORWARD = "That is the tensor ranks' sums of the forward pass. How many does the backward pass of a layer need?"
NODE = "Tensor ranks are neighbors, and a node has per_node of them. Which link does a ring of 16 take?"
INSIDE = "Data ranks that differ by tp places may still share a node. How many ranks do tp x dp neighbors take?"
EACH = "Gradients are summed over microbatches first, and over ranks once a step."
FITS = "What does not fit is not slow, it does not run. Which of the five hold more than memory_bytes?"
FLIGHT = "The first stage has begun min(pp, m) microbatches before one comes back: how many does it keep?"
BY_HAND = "Take one layout, and compute its parts by hand: stage, bubble, tensor sums, data sum."
BYTES = "Take this layout, and add its bytes by hand: weights and gradients, a share of the optimizer, activations."
ORDER = "The times are right. Name each layout that fits once, the fastest first."
FORM = "Return a list of pairs (place in layouts, seconds), the fastest first."


def ring_s(size_bytes: float, ranks: int, bytes_per_s: float) -> float:
    """An all-reduce by a ring, without latency."""
    return 2 * (ranks - 1) / ranks * size_bytes / bytes_per_s


def step_s(model: Sizes, machine: Sizes, layout: dict[str, int], wrong: str = "") -> float:
    """A step's time; `wrong` is the advice to a usual mistake, which is then made."""
    pp, dp, tp, mb = (layout[key] for key in ("pp", "dp", "tp", "microbatch"))
    links = machine["slow_bytes_per_s"], machine["fast_bytes_per_s"]
    m, tokens = model["batch"] / (dp * mb), mb * model["seq"]
    own = model["parameters"] / (pp * tp)
    sums = (2 if wrong == FORWARD else 4) * model["layers"] / pp
    tensor_link = links[tp <= machine["per_node"] or wrong == NODE]
    stage_s = 6 * own * tokens / machine["flops_per_s"] + sums * ring_s(2 * tokens * model["width"], tp, tensor_link)
    data_link = links[tp * dp <= machine["per_node"] and wrong != INSIDE]
    data_s = ring_s(2 * own, dp, data_link) * (m if wrong == EACH else 1)
    return (m if wrong == BUBBLE else m + pp - 1) * stage_s + data_s


def ranked(model: Sizes, machine: Sizes, layouts: list[dict[str, int]], wrong: str = "") -> list[list]:
    """The layouts that fit, as [place, seconds], the fastest first."""
    most = float("inf") if wrong == FITS else machine["memory_bytes"]
    rows = [
        [place, step_s(model, machine, one, wrong)]
        for place, one in enumerate(layouts)
        if held_bytes(model, one, in_flight=wrong != FLIGHT) <= most
    ]
    return sorted(rows, key=lambda row: row[1])


def _same(got: list[list], right: list[list]) -> bool:
    """Whether layouts, times and order are the same; of those that take equally long any may come first."""
    if len(got) != len(right):
        return False
    alike = all(
        place == other and isclose(seconds, expected, rel_tol=CLOSE)
        for (place, seconds), (other, expected) in zip(sorted(got), sorted(right), strict=True)
    )
    return alike and all(isclose(one[1], other[1], rel_tol=CLOSE) for one, other in zip(got, right, strict=True))


def _rows(got: Any, at: str) -> list[list]:
    """The answer as rows, or what is wrong with its form."""
    right = isinstance(got, list) and all(isinstance(row, list) and len(row) == 2 for row in got)
    if not right or any(type(n) not in (int, float) for row in got for n in row):
        raise Wrong(f"{at}: got {written(got)}", FORM)
    return got


@each_rank
def ranks_them(outcome: Outcome, rank: int, where: str) -> None:
    """The layouts that fit, with their times, fastest first."""
    _, machine, layouts = outcome.inputs[rank]
    right, at = outcome.expected[rank], f"{where}, {machine['gpus']} GPUs"
    got = _rows(outcome.results[rank], at)
    if _same(got, right):
        return
    usual = (BUBBLE, FORWARD, NODE, INSIDE, EACH, FITS, FLIGHT)
    # On every rank, as on one of them what fits may be the same by chance.
    answers = [(_rows(own, at), given) for own, given in zip(outcome.results, outcome.inputs, strict=True)]
    made = [wrong for wrong in usual if all(_same(own, ranked(*given, wrong=wrong)) for own, given in answers)]
    seen, advice = _difference(got, right, layouts)
    raise Wrong(f"{at}: {seen}", made[0] if made else advice)


def _difference(got: list[list], right: list[list], layouts: list[dict[str, int]]) -> tuple[str, str]:
    """The first difference, and what to do about it where the mistake is not a usual one."""
    known, expected = ({row[0]: row[1] for row in rows} for rows in (got, right))
    for place in sorted(known.keys() - expected.keys()):
        if place not in range(len(layouts)):
            return f"layout {place:.6g} is ranked; there are those from 0 to {len(layouts) - 1}", FORM
        return f"{_named(place, layouts)} is ranked, and does not fit", BYTES
    for place in sorted(expected.keys() - known.keys()):
        return f"{_named(place, layouts)} is missing, and fits", BYTES
    for place, seconds in expected.items():
        if not isclose(known[place], seconds, rel_tol=CLOSE):
            return f"{_named(place, layouts)} takes {known[place]:.6g} s, expected {seconds:.6g} s", BY_HAND
    return f"the order is {[row[0] for row in got]}, expected {[row[0] for row in right]}", ORDER


def _named(place: float, layouts: list[dict[str, int]]) -> str:
    return f"layout {place:.0f} ({', '.join(f'{key}={size}' for key, size in layouts[int(place)].items())})"


def _on(kind: str) -> list:
    return on(DRAWS, ranks_them(), kind=kind)


EXERCISE = Exercise(
    name="rank_layouts",
    given=five_layouts,
    expected=lambda outcome: [ranked(*given) for given in outcome.inputs],
    device="cpu",
    tests={
        "Compute and bubble, where the network costs nothing": _on("compute alone"),
        "The sums of tensor and data ranks, on the links that they take": _on("network"),
        "Only those that fit": _on("memory"),
    },
)
