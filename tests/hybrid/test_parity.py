"""A GPT on a layout ends where one process ends: losses, gradients, norm and weights after three steps.

Microbatches differ in how many targets count, so a mean of means would be wrong. Gradients are compared beside weights,
since Adam hides a factor. Tolerances, float64: 1e-11 is another order of sums, weights 1e-8, since Adam divides the
rounding of a gradient that is zero (a key's bias) by itself.
"""

import dataclasses

import pytest
from shared_hybrid import EXPERTS, GPT2, LLAMA, alone, distances

from parallel_lab import launch
from parallel_lab.hybrid import Layout

PADDED = dataclasses.replace(GPT2, vocab=257)  # its last part is padded along tp
CASES = {
    1: [
        (GPT2, Layout(), {"zero": 1}),
        (GPT2, Layout(), {"zero": 0, "recompute": True}),
        (EXPERTS, Layout(), {"zero": 3}),
    ],
    2: [
        (PADDED, Layout(tp=2), {"sequence": True}),
        (LLAMA, Layout(cp=2), {"zero": 3}),
        (EXPERTS, Layout(dp=2, ep=2), {"zero": 0}),
        (EXPERTS, Layout(dp=2), {"zero": 3}),
        (EXPERTS, Layout(cp=2, ep=2), {}),
        (GPT2, Layout(pp=2), {"schedule": "zb_v"}),
    ],
    3: [(PADDED, Layout(tp=3), {}), (GPT2, Layout(dp=3), {"zero": 3}), (GPT2, Layout(pp=3), {"recompute": True})],
    4: [
        (PADDED, Layout(pp=1, dp=2, cp=1, tp=2), {"zero": 0}),
        (PADDED, Layout(pp=1, dp=2, cp=1, tp=2), {"zero": 3, "sequence": True}),
        (GPT2, Layout(pp=2, dp=1, cp=1, tp=2), {"zero": 1, "schedule": "interleaved"}),
        (GPT2, Layout(pp=2, dp=2), {"zero": 1, "schedule": "zb_h1", "recompute": True}),
        (GPT2, Layout(pp=2, dp=2), {"zero": 3, "shards": 1}),
        (LLAMA, Layout(dp=2, cp=2), {"zero": 3, "shards": 2, "context": "ulysses"}),
        (dataclasses.replace(LLAMA, kv_heads=2), Layout(tp=4), {}),
        (EXPERTS, Layout(dp=4, ep=2), {"zero": 1}),
        (EXPERTS, Layout(dp=2, cp=2, ep=4), {"zero": 1}),
        (EXPERTS, Layout(pp=2, dp=2, ep=2), {"zero": 0, "schedule": "dualpipe_v", "microbatches": 4}),
        (EXPERTS, Layout(dp=2, tp=2, ep=2), {"capacity_factor": 16.0}),
        (dataclasses.replace(GPT2, seq=11), Layout(pp=2, tp=2), {"sequence": True}),
        (LLAMA, Layout(pp=2, cp=2), {"zero": 3, "recompute": True}),
    ],
    8: [
        (GPT2, Layout(pp=2, dp=2, cp=1, tp=2), {"zero": 1}),
        (PADDED, Layout(pp=2, dp=2, cp=1, tp=2), {"zero": 3, "sequence": True}),
        (LLAMA, Layout(pp=2, dp=1, cp=2, tp=2), {"zero": 0}),
        (EXPERTS, Layout(pp=1, dp=2, cp=2, tp=2, ep=2), {"zero": 1}),
    ],
}


def run(cases):
    oracle = {config: alone(config) for config in {config for config, *_ in cases}}
    return [distances(config, oracle[config], layout, **options) for config, layout, options in cases]


@pytest.mark.parametrize("world", list(CASES))
def test_ends_where_one_process_ends(world):
    for rank, results in enumerate(launch(run, CASES[world], ranks=world, timeout=240)):
        for (_, layout, options), found in zip(CASES[world], results, strict=True):
            most = {"loss": 1e-11, "gradient": 1e-11, "norm": 1e-10, "weights": 1e-8, "ones": 1e-8}
            assert {k: v for k, v in found.items() if not v <= most[k]} == {}, (rank, layout, options)
