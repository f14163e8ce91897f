"""NVML on a real GPU: joules and watts rise while it multiplies matrices, and no limit is exceeded for long."""

import pytest
import torch

from parallel_lab.systems.energy import Meter, nvml

pytestmark = pytest.mark.gpu


def board():
    """The NVML board of CUDA's first device; NVML counts all boards, CUDA those that it is shown."""
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    return next(each for each in nvml()[0] if uuid in each.name)


def multiply(products=200, size=8192):
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(products):
        a @ a
    torch.cuda.synchronize()


def test_nvml_reads_a_matrix_product():
    """What the counter and the gauge say lies above 0, and below the cap with a margin."""
    gpu = board()
    multiply(10)
    with Meter([gpu]) as meter:
        multiply()
    joules = meter.joules[gpu.name]
    assert meter.measured and 0 < joules < 1.5 * gpu.limit_w() * meter.seconds
    assert 0 < gpu.power_w() < 1.5 * gpu.limit_w()


def test_twice_the_work_takes_more_energy():
    gpu, joules = board(), []
    multiply(10)
    for products in (300, 1200):
        with Meter([gpu]) as meter:
            multiply(products)
        joules.append(meter.joules[gpu.name])
    assert joules[1] > 1.5 * joules[0] > 0
