"""Rules, masked sums, private steps and inversion on the CPU and on a GPU: the same to rounding, sums bit for bit."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector

from parallel_lab import launch
from parallel_lab.model import build
from parallel_lab.model.digits import digit_images
from parallel_lab.runtime.device import rank_device
from parallel_lab.systems.security import Privacy, inversion, private, robust, secure_sum

pytestmark = pytest.mark.usefixtures("by_value")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _measured(images, labels):
    device, rank = rank_device(), dist.get_rank()
    row = torch.randn(300, generator=torch.Generator().manual_seed(rank)).to(device)
    model = build((64, 16, 10), dtype=torch.float64).to(device)
    images, labels = images.double().to(device), labels.to(device)
    seen = inversion.gradients(model, images[:1], labels[:1])
    read = inversion.leak(inversion.by_division(seen[0], seen[1]), images[:1], images)
    dice = torch.Generator().manual_seed(rank)
    settings = Privacy(0.5, 1.0)
    private.step_over_ranks(model, images, labels, samples=2 * len(labels), privacy=settings, lr=0.5, dice=dice)
    private.step(model, images, labels, privacy=settings, lr=0.5, dice=torch.Generator().manual_seed(7))
    return {
        "device": device.type,
        "rules": {name: robust.aggregate(row, rule, 0).cpu() for name, rule in robust.RULES.items()},
        "sum": secure_sum.all_reduce(row).cpu(),
        "weights": parameters_to_vector(model.parameters()).detach().cpu(),
        "read": (read.exact, read.named),
    }


@pytest.mark.parametrize("device", DEVICES)
def test_security_on_a_device(device):
    images, labels = (each[:40] for each in digit_images())
    found, wanted = (launch(_measured, images, labels, ranks=3, device=where).results for where in (device, "cpu"))
    for got, right in zip(found, wanted, strict=True):
        assert got["device"] == device and got["read"] == (1, 1)
        assert torch.equal(got["sum"], right["sum"]), "a sum of whole numbers is the same bits"
        for name, row in got["rules"].items():
            torch.testing.assert_close(row, right["rules"][name])
        torch.testing.assert_close(got["weights"], right["weights"], atol=1e-9, rtol=0)
