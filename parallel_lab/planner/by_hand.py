"""A step of a GPT from the facts that a paper gives, on one page: four terms and one constant (chapter 22).

    found = by_hand(facts)            # seconds: compute_s, tensor_s, bubble_s, data_s, and their sum step_s
    share = fitted_share(facts, 60.1) # the share of the peak at which the step would take 60.1 s

The layout is pp x dp x tp, with tp inside a node, 1F1B or interleaved. What is left out: norms and activation
functions, messages between stages, unequal stages, the optimizer, the loading of data. All of that hides in the one
constant, `share`; `estimate` is the model that tells it apart.

Sources: Narayanan et al. 2021 (arXiv 2104.04473), equation 3 (FLOPs), section 2.2 (bubble), section 3.2 (two
all-reduces per layer and direction); Patarasuk and Yuan 2009 (the ring's bytes).
"""

from collections.abc import Mapping

NUMBER_BYTES = 2  # of an activation
FACTS = (
    "layers",
    "width",
    "vocab",
    "seq",
    "batch",
    "microbatch",
    "tp",
    "pp",
    "dp",
    "chunks",
    "recompute",
    "gradient_bytes",
    "peak_flops_per_s",
    "share",
    "fast_bytes_per_s",
    "slow_bytes_per_s",
)


def by_hand(facts: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a step and of its parts; `facts` has the keys of `FACTS`."""
    compute_s, tensor_s = _compute_s(facts), _tensor_s(facts)
    microbatches = facts["batch"] / (facts["dp"] * facts["microbatch"])
    bubble_s = (facts["pp"] - 1) / (facts["chunks"] * microbatches) * (compute_s + tensor_s)
    found = {"compute_s": compute_s, "tensor_s": tensor_s, "bubble_s": bubble_s, "data_s": _data_s(facts)}
    return found | {"step_s": sum(found.values())}


def fitted_share(facts: Mapping[str, float], step_s: float) -> float:
    """The share of the peak that makes the step as long as was measured; fitted so, a row predicts nothing.

    Raises:
        ValueError: communication alone takes that long.
    """
    all_of_it = by_hand({**facts, "share": 1.0})
    none_of_it = by_hand({**facts, "share": 1e12})["step_s"]
    if step_s <= none_of_it:
        raise ValueError(f"the step took {step_s:g} s, and communication alone {none_of_it:g} s")
    return (all_of_it["step_s"] - none_of_it) / (step_s - none_of_it)


def _compute_s(facts: Mapping[str, float]) -> float:
    """Arithmetic of one GPU: forward, twice that for backward, and one more forward of the layers where recomputed."""
    layers, width, seq = facts["layers"], facts["width"], facts["seq"]
    layer = 24 * width**2 + 4 * width * seq  # forward, for one token
    passes = 4 if facts["recompute"] else 3
    flops = facts["batch"] * seq * (passes * layers * layer + 6 * facts["vocab"] * width)
    gpus = facts["tp"] * facts["pp"] * facts["dp"]
    return flops / (gpus * facts["share"] * facts["peak_flops_per_s"])


def _tensor_s(facts: Mapping[str, float]) -> float:
    """The all-reduces inside the layers of one GPU: two in each pass over a layer, over its tokens."""
    tokens = facts["batch"] * facts["seq"] / facts["dp"]  # of one GPU, in all its microbatches
    size_bytes = NUMBER_BYTES * tokens * facts["width"]
    times = 2 * (3 if facts["recompute"] else 2) * facts["layers"] / facts["pp"]
    return times * _ring_bytes(facts["tp"], size_bytes) / facts["fast_bytes_per_s"]


def _data_s(facts: Mapping[str, float]) -> float:
    """The sum of the gradients of the first stage, which holds the token embedding as well; nothing hides it."""
    parameters = 12 * facts["layers"] * facts["width"] ** 2 / facts["pp"] + facts["vocab"] * facts["width"]
    size_bytes = facts["gradient_bytes"] * parameters / facts["tp"]
    return _ring_bytes(facts["dp"], size_bytes) / facts["slow_bytes_per_s"]


def _ring_bytes(n: float, size_bytes: float) -> float:
    """Bytes that each rank sends in a ring all-reduce."""
    return 2 * (n - 1) / n * size_bytes
