"""Pruned and low-rank models with tensors on the CPU and on a GPU.

Tolerance, float64: 1e-10; a GPU sums in another order.
"""

import pytest
import torch

from parallel_lab.compress import lora, low_rank, magnitude, merge, n_m, one_shot, prune_heads, prune_neurons, wanda
from parallel_lab.compress.iterative import fine_tune
from parallel_lab.compress.pruning import Masks, prunable
from parallel_lab.compress.second_order import sparse_gpt
from parallel_lab.compress.structured import choose, cut, heads, mask_of
from parallel_lab.model import GPTConfig, build, text_batches

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CONFIG = GPTConfig(seq=16, width=48, heads=4, kv_heads=2, layers=2, positions="rotary", gated=True, norm="rms")


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_made_on_a_device_is_what_the_cpu_makes(device):
    batches = list(text_batches(16, 4, 2))
    tokens = batches[0][0]
    made = {
        "neurons": lambda model: prune_neurons(model, 0.5),
        "heads": lambda model: prune_heads(model, 0.5),
        "low rank": lambda model: low_rank(model, 0.5),
        "SparseGPT": lambda model: one_shot(model, batches, sparse_gpt, sparsity=0.5) and model,
        "Wanda": lambda model: one_shot(model, batches, wanda, pattern=(2, 4)) and model,
    }
    for name, method in made.items():
        there, here = method(build(CONFIG, dtype=torch.float64).to(device)), method(build(CONFIG, dtype=torch.float64))
        assert all(p.device.type == device for p in there.parameters()), name
        assert (there(tokens.to(device)).cpu() - here(tokens)).abs().max() < 1e-10, name


@pytest.mark.parametrize("device", DEVICES)
def test_masks_stay_and_adapters_merge_on_a_device(device):
    model = build(CONFIG, dtype=torch.float64).to(device)
    tokens = next(iter(text_batches(16, 4, 1)))[0].to(device)
    masks = magnitude(model, 0.75, scope="global")
    fine_tune(model, masks, text_batches(16, 4, 2), torch.optim.AdamW, lr=1e-3)
    assert all((weight[~masks[name]] == 0).all() for name, weight in prunable(model).items())
    assert n_m(model.blocks[0].attention.query.weight).sum() == 48 * 24
    kept = choose(model, heads(model), 0.5)
    small = cut(model, kept)
    mask_of(model, kept).apply(model)
    assert (small(tokens) - model(tokens)).abs().max() < 1e-10
    adapted = lora(model, 2, 4)
    fine_tune(adapted, Masks(), text_batches(16, 4, 2), torch.optim.AdamW, lr=1e-3)
    assert (merge(adapted)(tokens) - adapted(tokens)).abs().max() < 1e-10
