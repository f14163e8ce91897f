"""Chapter 21: what each stage of a layout holds (Rajbhandari et al. 2020, "ZeRO"; Korthikanti et al. 2022)."""

import math
from numbers import Real

from parallel_lab.grading import laid_out
from parallel_lab.grading.exercise import Exercise, on
from parallel_lab.grading.expect import grader
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Opaque, name

CLOSE = 1e-6
SHARDED = "ZeRO shards stage by stage: first the optimizer, then gradients, then weights."
SAID = {
    "all layers": "That is every layer on every stage. How many does a stage have?",
    "no table": "That leaves out the tables. Which stages look tokens up, or turn vectors into logits?",
    "whole table": "That is a whole table on each tensor rank. What does tensor parallelism cut of it?",
    "table everywhere": "That is a table on every stage. Which two have one?",
    "all heads": "That has a key for each query head. How wide are key and value where heads share them?",
    "two matrices": "A gated feed-forward part has three matrices: gate, up and down.",
    "short gradients": "That takes gradients of 2 bytes. Here they are summed in float32.",
    "all sharded": SHARDED,
    "none sharded": SHARDED,
    "all under way": "That holds all microbatches at once, as GPipe does. When does 1F1B free the first?",
    "one under way": "That is one microbatch. How many has a stage sent on before its first comes back?",
    "as the first": "That is the first stage's number. The last stage turns back at once.",
    "whole activations": "That is not cut. With sequence parallelism every activation is spread over the tensor ranks.",
    "kept": "With recomputation a layer keeps its input alone.",
}


def stages_of(got: object, count: int, at: str) -> list[dict]:
    """The answer as a list of dicts, one for each stage."""
    if not isinstance(got, list | tuple) or isinstance(got, Opaque):
        raise Wrong(f"{at}: got {name(got)}, expected a list with a dict for each of {count} stages")
    if len(got) != count:
        raise Wrong(f"{at}: got {len(got)} stages, expected {count}")
    for stage, mine in enumerate(got):
        if not isinstance(mine, dict):
            raise Wrong(f"{at}: stage {stage} is {name(mine)}, expected a dict of bytes by kind")
    return list(got)


@grader
def counts(outcome: Outcome, *kinds: str) -> None:
    """Of each stage the bytes of these kinds are right; where one is a usual mistake's, the message says which."""
    (model, layout), right = outcome.inputs[0], outcome.expected[0]
    at = ", ".join(f"{key}={value}" for key, value in (model | layout).items())
    for stage, mine in enumerate(stages_of(outcome.results[0], layout["pp"], at)):
        for kind in kinds:
            if kind not in mine:
                raise Wrong(f"{at}: stage {stage} has no {kind!r}", "One dict has all of them; add it to yours.")
            seen, wanted = mine[kind], right[stage][kind]
            if not isinstance(seen, Real) or isinstance(seen, bool):
                raise Wrong(f"{at}: {kind} of stage {stage} is {name(seen)}, expected a number of bytes")
            if not math.isclose(seen, wanted, rel_tol=CLOSE):
                text = f"{at}: {kind} of stage {stage} is {float(seen):,.12g} B, expected {wanted:,.0f} B"
                raise Wrong(text, advice(float(seen), model, layout, stage, kind))


def advice(seen: float, model: laid_out.Model, layout: laid_out.Layout, stage: int, kind: str) -> str:
    """What is said to the mistake that comes to the same."""
    for mistake, said in SAID.items():
        made = laid_out.held(model, layout, {mistake})[stage][kind]
        if math.isclose(seen, made, rel_tol=CLOSE):
            return said
    if kind == "activations":
        return "Do one layer of this stage by hand: how many tokens has a microbatch, how many of them are under way?"
    return "Do one layer of one stage by hand: which matrices has it, and what of each is on one tensor rank?"


STATES = laid_out.KINDS[:3]
EXERCISE = Exercise(
    name="layout_memory",
    given=laid_out.scene,
    expected=lambda outcome: [laid_out.held(*given) for given in outcome.inputs],
    device="cpu",
    tests={
        # Step 1
        "Llama 3 70B over 4 stages and 8 tensor ranks, which one can do by hand": (
            on(1, counts(*STATES), by_hand=True)
        ),
        "Weights, gradients and optimizer of other models": on(1, counts(*STATES)),
        # Step 2
        "The same where data ranks shard": on([{"ranks": 1, "zero": stage} for stage in (1, 2, 3)], counts(*STATES)),
        # Step 3
        "Activations of the microbatches under way": on(1, counts(*laid_out.KINDS)),
        "A step of fewer microbatches than stages": on(1, counts(*laid_out.KINDS), few=True),
        "Layers that are computed again": on(1, counts(*laid_out.KINDS), recompute=True, zero=1),
    },
)
