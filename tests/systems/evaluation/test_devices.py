"""Metrics over ranks on the CPU and on a GPU: counts and AUC are the same whole numbers, the rest to 1e-9."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.runtime.device import rank_device
from parallel_lab.systems.evaluation import (
    auc,
    auc_over_ranks,
    calibration,
    confusion,
    histogram_auc,
    likelihood,
    merge,
    perplexity,
    roc_over_ranks,
)

pytestmark = pytest.mark.usefixtures("by_value")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _drawn():
    dice = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (300,), generator=dice)
    return labels, torch.randn(300, 2, generator=dice, dtype=torch.float64).round(decimals=1)


def _measured(cuts):
    device = rank_device()
    labels, logits = (each.tensor_split(cuts)[dist.get_rank()].to(device) for each in _drawn())
    scores = logits[:, 1].sigmoid()
    found = perplexity.merge(likelihood(logits, labels), device=device)
    return {
        "device": device.type,
        "counts": merge(confusion(labels, logits.argmax(1), 2)).cpu(),
        "auc": auc_over_ranks(labels, scores),
        "near": histogram_auc(labels, scores, 32),
        "points": len(roc_over_ranks(labels, scores).thresholds),
        "ece": calibration.expected_calibration_error(merge(calibration.bins(labels, logits.softmax(1)))),
        "temperature": calibration.temperature(labels, -logits if _falls(labels, logits) else logits),
        "loss": perplexity.mean_loss(found),
    }


def _falls(labels, logits):
    """Whether the labels speak against the logits, on all samples; then the other sign has a best temperature."""
    labels, logits = _drawn()
    return float(logits[torch.arange(300), labels].mean() - logits.mean()) < 0


@pytest.mark.parametrize("device", DEVICES)
def test_metrics_over_ranks_on_a_device(device):
    labels, logits = _drawn()
    run = launch(_measured, [0, 290], ranks=3, device=device)
    for found in run.results:
        assert found["device"] == device
        assert torch.equal(found["counts"], confusion(labels, logits.argmax(1), 2))
        assert found["auc"] == pytest.approx(auc(labels, logits[:, 1].sigmoid()), abs=1e-9)
        assert abs(found["near"].value - found["auc"]) <= found["near"].bound
        assert found["points"] == 1 + len(logits[:, 1].unique())
        assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-9)
        ece = calibration.expected_calibration_error(calibration.bins(labels, logits.softmax(1)))
        assert found["ece"] == pytest.approx(ece, abs=1e-9) and found["temperature"] == run.results[0]["temperature"]
