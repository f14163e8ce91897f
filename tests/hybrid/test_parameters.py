"""What the ranks hold together is the model, each number once, in any layout; and pieces go into a whole and back."""

import dataclasses

import torch
import torch.distributed as dist
from shared_hybrid import ADAM, EXPERTS, GPT2, LLAMA, answered, batches, whole_model

from parallel_lab import launch
from parallel_lab.hybrid import Layout, held, parallelize, refresh, train_step
from parallel_lab.model.formulas import parameter_count

PADDED = dataclasses.replace(GPT2, vocab=257)
CASES = [
    (PADDED, Layout(tp=4), {}),
    (PADDED, Layout(pp=2, tp=2), {"schedule": "zb_v"}),
    (PADDED, Layout(pp=2, dp=2), {"zero": 1}),
    (PADDED, Layout(dp=2, tp=2), {"zero": 3}),
    (GPT2, Layout(dp=4), {"zero": 3, "shards": 2}),
    (GPT2, Layout(dp=2, cp=2), {"zero": 0}),
    (dataclasses.replace(LLAMA, kv_heads=2), Layout(tp=4), {"zero": 1}),
    (EXPERTS, Layout(dp=4, ep=2), {"zero": 1}),
    (EXPERTS, Layout(dp=2, tp=2, ep=2), {"zero": 0}),
]


def assembled(config, layout, options):
    """How far the model that all pieces make is from the one that was laid out, and what all ranks answer for."""
    made, model = parallelize(whole_model(config), layout, **ADAM | options), whole_model(config)
    whole = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for each in held(made):
        if each.answers and each.stepped is not None:
            each.write(whole[each.name], each.stepped.detach())
    for value in whole.values():
        dist.all_reduce(value)  # each number stands on one rank, and is zero on all others
    off = max(float((whole[name] - p.detach()).abs().max()) for name, p in model.named_parameters())
    return off, answered(made) - parameter_count(config)


def exchanged(config, layout, options):
    """A model into whose pieces another's weights and moments were read: does it go on as that other does?"""
    one, other = (parallelize(whole_model(config), layout, **ADAM | options) for _ in range(2))
    first, second, third = batches(config)
    train_step(one, *first)
    train_step(one, *second)
    train_step(other, *third)
    for mine, theirs in zip(held(other), held(one), strict=True):
        if mine.stepped is not None:
            mine.stepped.data.copy_(theirs.stepped)
            mine.state.update({key: value.clone() for key, value in theirs.state.items()})
    refresh(other)
    losses = [train_step(made, *third).loss for made in (one, other)]
    pairs = zip(one.named_parameters().values(), other.named_parameters().values(), strict=True)
    return torch.equal(*losses) and all(torch.equal(p, q) for p, q in pairs)


def test_pieces_are_the_model_and_all_that_training_depends_on():
    """Those that ranks answer for are the model; weights and moments of a run, put into another, make it the same."""

    def fn():
        again = [exchanged(*case) for case in (CASES[2], CASES[3], CASES[4], CASES[7])]
        return [assembled(*case) for case in CASES], again

    for found, again in launch(fn, ranks=4, timeout=120):
        assert found == [(0.0, 0)] * len(CASES) and all(again)
