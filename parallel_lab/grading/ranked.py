"""A model, a machine and five layouts, drawn so that links and memory matter: the inputs of `rank_layouts`.

Ranks make them themselves and import this module, so it uses no technique, and it says how much a layout holds but not
how long it takes.
"""

import random
from collections.abc import Mapping
from itertools import product
from math import inf

import torch

from parallel_lab.grading.rank_side import Case

PER_NODE = 8
Sizes = Mapping[str, float]


def five_layouts(case: Case, rank: int, generator: torch.Generator) -> tuple[Sizes, Sizes, list[dict[str, int]]]:
    """The arguments of a call, of the kind that the setting names: compute alone, network, memory."""
    dice, kind = random.Random(generator.initial_seed()), str(case["kind"])
    while True:
        gpus = dice.choice((64, 128))
        model = _model(dice, gpus)
        layouts = _five(dice, gpus, model)
        machine = _machine(dice, gpus, kind)
        if kind == "memory":
            machine["memory_bytes"] = _tight(dice, rank, model, layouts)
        if layouts and _telling(kind, model, machine, layouts):
            return model, machine, layouts


def held_bytes(model: Sizes, layout: dict[str, int], in_flight: bool = True) -> float:
    """What the fullest rank of a layout holds: weights, gradients, a share of the optimizer, and activations."""
    pp, dp, tp, mb = (layout[name] for name in ("pp", "dp", "tp", "microbatch"))
    own = model["parameters"] / (pp * tp)
    several = min(pp, model["batch"] // (dp * mb)) if in_flight else 1
    kept = 34 * mb * model["seq"] * model["width"] * (model["layers"] / pp) / tp
    return 6 * own + 12 * own / dp + several * kept


def _model(dice: random.Random, gpus: int) -> Sizes:
    layers, width = dice.choice((32, 48, 64)), dice.choice((4096, 5120, 6144))
    seq, batch = dice.choice((2048, 4096)), gpus * dice.choice((2, 4))
    return {"layers": layers, "width": width, "seq": seq, "batch": batch, "parameters": 12 * layers * width**2}


def _machine(dice: random.Random, gpus: int, kind: str) -> dict[str, float]:
    network = kind != "compute alone"
    return {
        "gpus": gpus,
        "per_node": PER_NODE,
        "flops_per_s": dice.choice((1.5e14, 2e14, 4e14)),
        "memory_bytes": inf,
        "fast_bytes_per_s": dice.choice((2e11, 3e11)) if network else inf,
        "slow_bytes_per_s": dice.choice((1.2e10, 2.5e10)) if network else inf,
    }


def _five(dice: random.Random, gpus: int, model: Sizes) -> list[dict[str, int]]:
    """Five layouts of other axes: one with tensor ranks across nodes, one with data ranks inside a node."""
    made = []
    for pp, tp, mb in product((1, 2, 4, 8, 16), (1, 2, 4, 8, 16), (1, 2)):
        dp = gpus // (pp * tp)
        if pp * tp <= gpus and model["layers"] % pp == 0 and model["batch"] % (dp * mb) == 0:
            made.append({"pp": pp, "dp": dp, "tp": tp, "microbatch": mb})
    dice.shuffle(made)
    chosen = [next(one for one in made if one["tp"] > PER_NODE)]
    chosen += [next(one for one in made if one["dp"] > 1 and one["dp"] * one["tp"] <= PER_NODE)]
    for one in made:
        if len(chosen) < 5 and all((one["pp"], one["tp"]) != (other["pp"], other["tp"]) for other in chosen):
            chosen.append(one)
    dice.shuffle(chosen)
    return chosen


def _tight(dice: random.Random, rank: int, model: Sizes, layouts: list[dict[str, int]]) -> float:
    """A little more than one layout with stages holds, or on odd ranks a little less: who is off by more is seen."""
    one = dice.choice([layout for layout in layouts if layout["pp"] > 1] or layouts)
    return round(held_bytes(model, one) * (0.99 if rank % 2 else 1.01), -6)


def _telling(kind: str, model: Sizes, machine: Sizes, layouts: list[dict[str, int]]) -> bool:
    """Whether some fit and some do not, and whether it matters how many microbatches are in flight."""
    if kind != "memory":
        return True
    most = machine["memory_bytes"]
    fits = [held_bytes(model, one) <= most for one in layouts]
    alone = [held_bytes(model, one, in_flight=False) <= most for one in layouts]
    return 2 <= sum(fits) < sum(alone) < len(layouts)
