"""Layouts end where one process ends with tensors on the CPU and on a GPU that the ranks share.

Tolerance, float64: 1e-9 on losses and gradients, 1e-7 on weights after three steps of Adam. A GPU sums in another order
and has other exponentials.
"""

import pytest
from shared_hybrid import EXPERTS, GPT2, LLAMA, alone, distances

from parallel_lab import launch
from parallel_lab.hybrid import Layout
from parallel_lab.runtime import rank_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CASES = [
    (GPT2, Layout(pp=2), {"recompute": True}),
    (GPT2, Layout(dp=2), {"zero": 1}),
    (GPT2, Layout(dp=2), {"zero": 3}),
    (GPT2, Layout(tp=2), {"sequence": True}),
    (LLAMA, Layout(cp=2), {}),
    (EXPERTS, Layout(dp=2, ep=2), {}),
]


@pytest.mark.parametrize("device", DEVICES)
def test_ends_where_one_process_ends(device):
    def fn():
        assert rank_device().type == device
        oracle = {config: alone(config) for config in (GPT2, LLAMA, EXPERTS)}
        return [distances(config, oracle[config], layout, **options) for config, layout, options in CASES]

    for results in launch(fn, ranks=2, device=device, timeout=170):
        for (_, layout, options), found in zip(CASES, results, strict=True):
            most = {"loss": 1e-9, "gradient": 1e-9, "norm": 1e-9, "weights": 1e-7, "ones": 1e-8}
            assert {k: v for k, v in found.items() if not v <= most[k]} == {}, (layout, options)
