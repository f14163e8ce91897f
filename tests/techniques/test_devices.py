"""Every technique ends where one process ends, on the CPU and on a GPU that the ranks share.

Tolerance: float64, 1e-9 absolute after three steps on weights of order 1. A GPU sums in another order than the CPU
and has other exponentials, so more than the last digits may differ.
"""

import pytest
import torch
import torch.distributed as dist
from every_technique import ADAM_LIKE, ADAMW, BATCHES, CONFIG, CONFIGS, SGD_LIKE, build

from parallel_lab import launch, model
from parallel_lab.runtime import rank_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ends_where_one_process_ends(device, ranks):
    """One launch holds every technique: a rank returns, for each, its largest distance from the oracle's weights."""

    def run():
        group = dist.group.WORLD
        assert rank_device().type == device
        found = {}
        for kind, options, techniques in (
            (torch.optim.AdamW, ADAMW, ADAM_LIKE),
            (torch.optim.SGD, {"lr": 0.1}, SGD_LIKE),
        ):
            rights = {c: model.train(build(c), BATCHES, kind, **options).weights for c in (CONFIG, *CONFIGS.values())}
            for name, technique in techniques.items():
                got, right = technique(group), rights[CONFIGS.get(name, CONFIG)]
                off = [(got[key] - right[key].to(got[key].device)).abs().max().item() for key in right if key in got]
                found[name] = max(off, default=0.0), len(off) == len(right)
        return found

    for rank, found in enumerate(launch(run, ranks=ranks, device=device, timeout=120).results):
        for name, (off, complete) in found.items():
            serves = name == "a parameter server" and rank == 0  # a server has its shard alone
            assert off < 1e-9 and (serves or complete), f"{name} on rank {rank}: off by {off}"
