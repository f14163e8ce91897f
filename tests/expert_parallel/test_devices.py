"""Parity, capacity and recomputation with tensors on the CPU and on a GPU that the ranks share.

Tolerance, float64: 1e-9 on losses and gradients. A GPU sums in another order and has other exponentials.
"""

import pytest
import torch
import torch.distributed as dist
from shared_ep import LLAMA, MOE, all_to_expert_0, apart, batches_of, cut, part_of_loss, steps, variant, whole_model
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.expert_parallel import expert_parallel, route
from parallel_lab.runtime import rank_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def on_device(batches):
    return [(x.to(rank_device()), y.to(rank_device())) for x, y in batches]


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_that_of_one_process(device):
    cases = {
        "gpt": (MOE, lambda model: model),
        "llama": (variant(**LLAMA), lambda model: model),
        "all to expert 0": (variant(active_experts=1), all_to_expert_0),
    }

    def fn():
        assert rank_device().type == device
        found = {}
        for name, (config, change) in cases.items():
            whole = change(whole_model(config)).to(rank_device())
            mine = expert_parallel(change(whole_model(config)).to(rank_device()))
            batches = on_device(batches_of(config, 5, 1))
            options = {"weight": 0.1, "rate": 0.01}
            losses, right = steps(mine, batches, dist.group.WORLD, **options), steps(whole, batches, **options)
            found[name] = max(abs(losses[0] - right[0]), apart(mine, whole)[0])
        return found

    for result in launch(fn, ranks=2, device=device, timeout=120).results:
        assert max(result.values()) < 1e-9, result


@pytest.mark.parametrize("device", DEVICES)
def test_ties_and_drops_are_those_of_the_cpu_and_blocks_can_be_computed_again(device):
    def fn():
        chosen = torch.randint(4, (64, 2), generator=torch.Generator().manual_seed(0))
        weights = torch.ones(64, 2)
        there = route(chosen.to(rank_device()), weights.to(rank_device()), 4, 20, "score")
        same = all(torch.equal(a, b.cpu()) for a, b in zip(route(chosen, weights, 4, 20, "score"), there, strict=True))
        once, again = (cut(MOE, dist.group.WORLD, lambda m: m, capacity_factor=1.0).to(rank_device()) for _ in range(2))
        for block in again.blocks:
            block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
        (x, y) = on_device(batches_of(MOE, 2, 1))[0]
        for model in (once, again):
            part_of_loss(model, x, y, y.numel()).backward()
        return same, apart(again, once)[0]

    assert all(same and off < 1e-9 for same, off in launch(fn, ranks=2, device=device, timeout=120).results)
