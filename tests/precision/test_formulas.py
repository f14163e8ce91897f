"""What the roofline predicts for 16 bits, and the rest of the formulas that no other file here holds against a run."""

import pytest
import torch

from parallel_lab.precision import DynamicScale, Policy, formulas
from parallel_lab.simulate.roofline import Roofline

# An H100 SXM: 67 and 989 TFLOP/s without sparsity, 3.35 TB/s (NVIDIA's data sheet).
FLOAT32, BFLOAT16 = Roofline(67e12, 3.35e12), Roofline(989e12, 3.35e12)


def test_a_product_gains_between_the_bytes_and_the_arithmetic():
    small = formulas.product_speedup(FLOAT32, BFLOAT16, 1, 4096, 4096)
    large = formulas.product_speedup(FLOAT32, BFLOAT16, 8192, 8192, 8192)
    assert small == pytest.approx(2) and large == pytest.approx(989 / 67)
    seconds = formulas.product_s(BFLOAT16, 8192, 8192, 8192, 2)
    assert seconds == 2 * 8192**3 / 989e12
    assert formulas.product_s(BFLOAT16, 1, 4096, 4096, 2) == pytest.approx(2 * (4096**2 + 2 * 4096) / 3.35e12)


def test_a_step_gains_less_than_its_products():
    bound = formulas.step_speedup(FLOAT32, BFLOAT16, flops=1e12, activation_bytes=0, state_bytes=0)
    assert bound == pytest.approx(989 / 67)
    whole = formulas.step_speedup(FLOAT32, BFLOAT16, flops=1e12, activation_bytes=1e10, state_bytes=4e9)
    assert 2 < whole < bound
    assert formulas.step_speedup(FLOAT32, BFLOAT16, flops=0, activation_bytes=0, state_bytes=1.0) == 1


def test_bytes_a_parameter():
    assert formulas.held_bytes(Policy(compute=torch.float32)) == (4, 4, 0, 8, 0)
    assert formulas.held_bytes(Policy()) == (4, 4, 0, 8, 2)
    assert formulas.held_bytes(Policy(parameters=torch.bfloat16)) == (2, 2, 4, 8, 4)
    assert formulas.held_bytes(Policy(parameters=torch.bfloat16), masters=False, moments=1).total == 6


def test_the_share_of_skipped_steps_is_that_of_a_run():
    """A gradient of 1 that overflows from a scale of 2^16 on."""
    scaler, skipped, p = DynamicScale(2.0**15, interval=9), 0, torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([p], 0.1)
    for _ in range(200):
        p.grad = torch.ones(1, dtype=torch.float16).mul(scaler.value).float()
        skipped += not scaler.step(optimizer)
        scaler.update()
    assert skipped / 200 == formulas.skipped_share(9) == 0.1
