"""Models and layouts for counting the memory of each pipeline stage by hand, and what usual mistakes come to.

Ranks draw these themselves and import this module, so it uses no technique and no planner: a test holds `held` against
`planner.memory`. A model is of Llama's kind: gated, grouped heads, no biases, an embedding and a head of their own;
norms are left out. Bytes are Megatron's: a weight of 2, its gradient of 4, and 12 of master copy and moments.
"""

import random
from collections.abc import Collection

import torch

from parallel_lab.grading.rank_side import Case

Model = dict[str, int]
Layout = dict[str, int]
KINDS = ("weights", "gradients", "optimizer", "activations")
LLAMA3_70B: Model = {
    "layers": 80, "width": 8192, "heads": 64, "kv_heads": 8, "hidden": 28_672, "vocab": 128_256, "seq": 8192,
}  # fmt: skip
BY_HAND: Layout = {"pp": 4, "dp": 32, "tp": 8, "zero": 0, "microbatch": 1, "microbatches": 32, "recompute": 0}


def scene(case: Case, rank: int, generator: torch.Generator) -> tuple[Model, Layout]:
    """The arguments of a call: a model and a layout; of the kind that the case's settings name."""
    dice = random.Random(generator.initial_seed())
    if case.get("by_hand"):
        return dict(LLAMA3_70B), dict(BY_HAND)
    pp, tp = dice.choice((3, 4, 6)), dice.choice((2, 4))
    kv_heads = tp * dice.choice((1, 2))
    heads = kv_heads * dice.choice((3, 6))  # never kv_heads^2, as in Llama 3 70B: h/kv_heads would be right by chance
    width = heads * dice.choice((64, 128))
    model = {
        "layers": pp * dice.choice((2, 3, 5)), "width": width, "heads": heads, "kv_heads": kv_heads,
        "hidden": 256 * dice.randrange(5, 30), "vocab": tp * dice.randrange(5000, 9000),
        "seq": dice.choice((1024, 4096)),
    }  # fmt: skip
    layout = {
        "pp": pp, "dp": dice.choice((2, 8, 16)), "tp": tp, "zero": int(str(case.get("zero") or 0)),
        "microbatch": dice.choice((2, 3)), "microbatches": 3 * pp + 1, "recompute": int(bool(case.get("recompute"))),
    }  # fmt: skip
    if case.get("few"):
        layout["microbatches"] = pp - 1
    return model, layout


def held(model: Model, layout: Layout, wrong: Collection[str] = ()) -> list[dict[str, float]]:
    """Bytes of each pipeline stage by kind; `wrong` names the mistakes to make."""
    stages = 1 if "all layers" in wrong else layout["pp"]
    numbers = model["layers"] / stages * _layer_numbers(model, wrong) / layout["tp"]
    table = model["vocab"] * model["width"] / (1 if "whole table" in wrong else layout["tp"])
    found = []
    for stage in range(layout["pp"]):
        ends = 0 if "no table" in wrong else table * (stage in _with_tables(layout, wrong))
        mine = {kind: (numbers + ends) * _bytes(kind, layout, wrong) for kind in KINDS[:3]}
        found.append(mine | {"activations": _activations(model, layout, stage, wrong)})
    return found


def _layer_numbers(model: Model, wrong: Collection[str]) -> int:
    """Query and out are h x h, key and value h x h_kv, and three matrices h x hidden."""
    width = model["width"]
    keys = width if "all heads" in wrong else width * model["kv_heads"] // model["heads"]
    return 2 * width * (width + keys) + (2 if "two matrices" in wrong else 3) * width * model["hidden"]


def _with_tables(layout: Layout, wrong: Collection[str]) -> Collection[int]:
    return range(layout["pp"]) if "table everywhere" in wrong else (0, layout["pp"] - 1)


def _bytes(kind: str, layout: Layout, wrong: Collection[str]) -> float:
    each = {"weights": 2, "gradients": 2 if "short gradients" in wrong else 4, "optimizer": 12}[kind]
    since = {"optimizer": 1, "gradients": 2, "weights": 3}[kind]
    since = 1 if "all sharded" in wrong else 4 if "none sharded" in wrong else since
    return each / (layout["dp"] if layout["zero"] >= since else 1)


def _activations(model: Model, layout: Layout, stage: int, wrong: Collection[str]) -> float:
    """What a layer keeps of a microbatch, times layers, times microbatches under way."""
    pp, width, count = layout["pp"], model["width"], layout["microbatches"]
    keys = width * model["kv_heads"] // model["heads"]
    each = 6 * width + 2 * keys + 3 * model["hidden"]
    if layout["recompute"] and "kept" not in wrong:
        each = width
    tokens = layout["microbatch"] * model["seq"]
    under_way = min(pp - stage, count)
    under_way = count if "all under way" in wrong else 1 if "one under way" in wrong else under_way
    under_way = min(pp, count) if "as the first" in wrong else under_way
    return under_way * model["layers"] / pp * 2 * tokens * each / (1 if "whole activations" in wrong else layout["tp"])
