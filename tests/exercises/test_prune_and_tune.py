"""`prune_and_tune`: thresholds, masks that are lost, matrices that stay large, optimizers of what is gone, zeros."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from grading import assert_ends_a_step, assert_found_out, assert_passes, by_value, solutions
from torch import nn
from torch.nn.utils import prune

from parallel_lab.grading.references import reference_in

by_value(__name__)
NAME = "prune_and_tune"
SPACE = solutions(NAME)
apply, average, global_masks, linears_of, prune_and_tune, without_neurons = (
    SPACE[name] for name in ("apply", "average", "global_masks", "linears_of", NAME, "without_neurons")
)


def answer(masks_of=global_masks, cut=without_neurons, hold=apply, mean=average, own=lambda old, new: new):
    """The solution with a part of it done in another way."""

    def changed(model, sparsity, batches, make_optimizer, structured):
        old = deepcopy(model)
        model = cut(model, sparsity) if structured else model
        masks = {} if structured else masks_of(model, sparsity)
        apply(masks)
        optimizer = make_optimizer(own(old, model).parameters())
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.mse_loss(model(inputs), targets).backward()
            mean(model, masks)
            optimizer.step()
            hold(masks)
        return model

    return changed


def layer_by_layer(model, sparsity):
    return {
        weight: mask
        for layer in linears_of(model)
        for weight, mask in global_masks(nn.Sequential(layer), sparsity).items()
    }


def with_biases(model, sparsity):
    sizes = torch.cat([p.detach().abs().flatten() for p in model.parameters()])
    limit = sizes.sort().values[round(sparsity * len(sizes))]
    return {p: p.detach().abs() >= limit for p in model.parameters()}


def zeros_in_old_shapes(model, sparsity):
    kept = without_neurons(deepcopy(model), sparsity)
    linears = linears_of(model)
    for up, down, small in zip(linears, linears[1:], linears_of(kept), strict=False):
        score = up.weight.norm(dim=1) * down.weight.norm(dim=0)
        gone = score.argsort()[: len(score) - len(small.bias)]
        with torch.no_grad():
            up.weight[gone], up.bias[gone], down.weight[:, gone] = 0, 0, 0
    return model


def whole_gradients(model, masks):
    for p in model.parameters():
        p.grad /= dist.get_world_size()
        dist.all_reduce(p.grad)


lost = answer(hold=lambda masks: None, mean=whole_gradients)
CHEATS = [  # (answer, the test that sees through it, what it says)
    (
        answer(masks_of=layer_by_layer),
        0,
        "each layer was pruned by a threshold of its own\n.*one pool with one threshold",
    ),
    (answer(masks_of=with_biases), 0, "biases were pruned and counted with the weights\n.*biases are not in it"),
    (lost, 1, "after 3 steps: .* of 178 pruned weights are not zero\n.*do after each step"),
    (
        answer(cut=zeros_in_old_shapes),
        2,
        r"got .* shape \(12, 7\), expected .* shape \(3, 7\)\n.*the matrix is smaller",
    ),
    (answer(own=lambda old, new: old), 3, "the returned model is as it was before training\n.*that you return?"),
    (answer(mean=whole_gradients), 5, "rank 0 sent 25.8 kB, gradients of what stays are 7,392 B\n.*masks are the same"),
]


@pytest.mark.parametrize(
    ("cheat", "place", "said"), [pytest.param(*case, id=str(number)) for number, case in enumerate(CHEATS)]
)
def test_cheat_fails_with_its_message(cheat, place, said):
    assert_found_out(NAME, cheat, place, said)


def other(model, sparsity, batches, make_optimizer, structured):
    """Not a cheat: a new model, gradients masked before the step and not weights after it, a message a parameter."""
    model = deepcopy(model)
    if structured:
        small = without_neurons(deepcopy(model), sparsity)
        model = nn.Sequential(*(layer for layer in small))
    masks = {} if structured else global_masks(model, sparsity)
    apply(masks)
    optimizer = make_optimizer(model.parameters())
    for inputs, targets in batches:
        loss = F.mse_loss(model(inputs), targets) / dist.get_world_size()
        for p, gradient in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
            stays = masks.get(p, torch.ones_like(p, dtype=torch.bool))
            values = gradient[stays]
            dist.all_reduce(values)
            p.grad = torch.zeros_like(p).masked_scatter_(stays, values)
        optimizer.step()
    return model


def test_another_right_answer_passes():
    assert_passes(NAME, other)


def test_the_ready_made_one_is_seen():
    def by_torch(model, sparsity, *_):
        prune.global_unstructured(
            [(each, "weight") for each in linears_of(model)], prune.L1Unstructured, amount=sparsity
        )
        return model

    assert reference_in(by_torch) == "by_torch uses global_unstructured"
    assert not reference_in(prune_and_tune)


def test_answer_of_a_step_passes_it_and_fails_the_next():
    assert_ends_a_step(NAME, 1, lost, "pruned weights are not zero")
    assert_ends_a_step(NAME, 2, answer(cut=zeros_in_old_shapes), "the matrix is smaller")
    assert_ends_a_step(NAME, 3, answer(mean=lambda model, masks: None), "the mean over the ranks")
