"""Facts of training runs, as a paper gives them: one published run, and others drawn around it.

Ranks make them themselves and import this module, so it uses no technique. A drawn run has another number on every
axis, so that a degree taken for another one changes the result.
"""

import random
from typing import Any

import torch

from parallel_lab.grading.rank_side import Case

# Smith et al. 2022, sections 2.3 and 2.4: Megatron-Turing NLG on 280, 350 and 420 DGX A100 took 60.1, 50.2 and 44.4 s.
# Vocabulary padded to 51,200; the share of the peak is ours; links by data sheet, one direction.
MT_NLG: dict[str, Any] = {
    "layers": 105,
    "width": 20_480,
    "vocab": 51_200,
    "seq": 2048,
    "batch": 1920,
    "microbatch": 1,
    "tp": 8,
    "pp": 35,
    "dp": 8,
    "chunks": 1,
    "recompute": True,
    "gradient_bytes": 2,
    "peak_flops_per_s": 312e12,
    "share": 0.5,
    "fast_bytes_per_s": 300e9,
    "slow_bytes_per_s": 25e9,
}


def facts(case: Case, rank: int, generator: torch.Generator) -> tuple[dict[str, Any]]:
    """The argument of a call: the facts of MT-NLG with `dp` ranks, or of a run that is drawn."""
    if dp := case.get("published"):
        return ({**MT_NLG, "dp": dp},)
    dice = random.Random(generator.initial_seed())
    tp, pp, dp = dice.sample((2, 3, 4, 6, 8, 12), 3)
    chunks, microbatch = dice.choice((2, 3)), dice.choice((2, 4))
    drawn = {
        "layers": pp * chunks * dice.choice((1, 2, 3)),
        "width": 1024 * dice.randrange(4, 13),
        "vocab": dice.choice((32_000, 51_200, 128_256)),
        "seq": dice.choice((2048, 4096)),
        "microbatch": microbatch,
        "batch": pp * dp * microbatch * dice.randrange(2, 6),
        "tp": case.get("tp", tp),
        "pp": pp,
        "dp": dp,
        "chunks": chunks,
        "recompute": case.get("recompute", True),
        "gradient_bytes": dice.choice((2, 4)),
        "peak_flops_per_s": dice.choice((312e12, 989e12)),
        "share": round(dice.uniform(0.4, 0.7), 2),
        "fast_bytes_per_s": 1e9 * dice.choice((150, 300, 450)),
        "slow_bytes_per_s": 1e9 * dice.choice((12.5, 25, 50)),
    }
    return (drawn,)
