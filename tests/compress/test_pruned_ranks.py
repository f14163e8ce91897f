"""What a pruned model sends in data-parallel training, and that masks stay on every rank.

Tolerance, float64: 1e-12 on weights. One launch of four ranks; smaller worlds are groups of its first ranks.
"""

import copy

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.compress import Masks, fine_tune, lora, low_rank, magnitude, prune_neurons
from parallel_lab.compress.formulas import data_parallel_bytes
from parallel_lab.compress.pruning import prunable
from parallel_lab.data_parallel import DDP
from parallel_lab.model import build, digit_batches, loss
from parallel_lab.model.data import share
from parallel_lab.trace import span

pytestmark = pytest.mark.usefixtures("by_value")
WORLDS, STEPS, BATCH = (1, 2, 3, 4), 2, 12  # every world has equal shares
WIDTHS = (64, 24, 10)
SGD = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}


def whole():
    return build(WIDTHS, dtype=torch.float64)


def kinds():
    """Each way's model and masks."""
    torch.manual_seed(0)
    model = whole()
    return {
        "dense": (copy.deepcopy(model), Masks()),
        "masked": (copy.deepcopy(model), magnitude(model, 0.75, scope="global")),
        "cut": (prune_neurons(model, 0.75), Masks()),
        "low rank": (low_rank(model, 0.5), Masks()),
        "adapters": (lora(model, 2, 4), Masks()),
    }


def steps_on_ranks():
    left = {}
    for n in WORLDS:
        group = dist.new_group(range(n))
        for kind, (model, masks) in kinds().items() if dist.get_rank() < n else ():
            ddp = DDP(model, group=group)
            optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **SGD)
            masks.hold(ddp.module, optimizer)
            for x, y in digit_batches(BATCH, STEPS):
                mine = share(BATCH, dist.get_rank(), n)
                optimizer.zero_grad()
                with span(f"{kind} at {n}"):
                    loss(ddp(x[mine].double()), y[mine]).backward()
                optimizer.step()
            left[kind, n] = {name: p.detach() for name, p in model.named_parameters()}
    return left


def test_masks_stay_on_all_ranks_and_bytes_are_those_of_what_is_trained():
    run = launch(steps_on_ranks, ranks=max(WORLDS), device="cpu", timeout=120)
    for kind, (model, masks) in kinds().items():
        fine_tune(model, masks, digit_batches(BATCH, STEPS), torch.optim.SGD, **SGD)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        for n in WORLDS:
            for rank in range(n):
                left = run.results[rank][kind, n]
                assert all((left[name] - p).abs().max() < 1e-12 for name, p in model.named_parameters()), (kind, n)
                assert all((left[name][~mask] == 0).all() for name, mask in masks.items())
            sent = 0
            for rank in range(n):
                spans = run.trace.of(rank)
                within = [s for s in spans if s.kind == f"{kind} at {n}"]
                sent += sum(s.sent_bytes for w in within for s in spans if w.start_s <= s.start_s < w.end_s)
            expected = STEPS * n * data_parallel_bytes(trained, n, 8)
            assert sent == pytest.approx(expected, abs=4 * STEPS * n), (kind, n)  # and a guard's flags


def test_what_is_less_to_send():
    sizes = {kind: sum(p.numel() for p in m.parameters() if p.requires_grad) for kind, (m, _) in kinds().items()}
    assert sizes["masked"] == sizes["dense"] == 64 * 24 + 24 + 24 * 10 + 10
    assert sizes["cut"] == 64 * 6 + 6 + 6 * 10 + 10 and sizes["adapters"] == 2 * (64 + 24) + 2 * (24 + 10)
    assert sizes["low rank"] < sizes["dense"] and len(prunable(kinds()["low rank"][0])) > 2
