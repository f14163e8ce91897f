"""What a step is made of: clipping, uneven shares, dropout by axis, biases of experts, refusals, what is recorded."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from shared_hybrid import ADAM, EXPERTS, GPT2, batches, loss_of, whole_model
from torch import nn

from parallel_lab import launch
from parallel_lab.expert_parallel import mixtures
from parallel_lab.hybrid import Layout, held, parallelize, train_step
from parallel_lab.plan import check_plan
from parallel_lab.trace import Trace, recorder

DROPOUT = dataclasses.replace(GPT2, dropout=0.5)


def clipped_and_uneven():
    """Seven rows over two data ranks and two microbatches, clipped far below the norm: (norm, weights) off by."""
    model = whole_model(GPT2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    made = parallelize(
        whole_model(GPT2), Layout(pp=2, dp=2), optimizer=torch.optim.SGD, lr=1.0, clip=0.1, microbatches=2
    )
    off = 0.0
    for tokens, targets in [(x[:7], y[:7]) for x, y in batches(GPT2)]:
        optimizer.zero_grad()
        loss = loss_of(model(tokens), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        outcome = train_step(made, tokens, targets)
        off = max(off, abs(float(outcome.loss - loss.detach())), abs(float(outcome.norm - norm)))
    whole = model.state_dict()
    pieces = [h for h in held(made) if h.stepped is not None]
    return off, max(float((h.read(whole[h.name]) - h.stepped.reshape(-1)).abs().max()) for h in pieces)


def test_one_factor_clips_all_ranks():
    for off, weights in launch(clipped_and_uneven, ranks=4):
        assert off < 1e-11 and weights < 1e-11


def masks(layout, options):
    """Which values each dropout of the first step left, in words, by the place of the rank."""
    made, seen = parallelize(whole_model(DROPOUT), layout, **ADAM | options), []
    for module in made.modules():
        for each in module.modules():
            if isinstance(each, nn.Dropout):
                each.register_forward_hook(lambda _, args, out: seen.append((out == 0).sum((0, 2)).tolist()))
    train_step(made, *batches(DROPOUT)[0])
    place = {axis: made.place[axis] for axis in ("pp", "dp", "cp", "tp")}
    return place, seen


def test_dropout_agrees_along_tp_and_differs_along_all_others():
    def fn():
        layouts = (Layout(dp=2, tp=2), Layout(cp=2, tp=2), Layout(pp=2, tp=2))
        return [masks(layout, options) for layout in layouts for options in ({}, {"zero": 3})]

    for case in zip(*launch(fn, ranks=4), strict=True):
        for place, seen in case:
            for other, others in case:
                differing = [axis for axis in place if place[axis] != other[axis] and axis != "tp"]
                assert (seen == others) == (not differing), (place, other)


def moved(layout):
    """The biases of the experts after two steps that move them, and the load that is left."""
    made = parallelize(whole_model(EXPERTS), layout, bias_rate=0.125, microbatches=2, **ADAM)
    for batch in batches(EXPERTS)[:2]:
        train_step(made, *batch)
    found = [mixture for module in made.modules() for mixture in mixtures(module)]
    return [mixture.bias.tolist() for mixture in found], sum(int(mixture.load.sum()) for mixture in found)


def test_biases_follow_the_load_of_the_global_batch():
    (right, _) = launch(moved, Layout(), ranks=1)[0]
    assert any(map(any, right))
    layouts = (Layout(dp=2, ep=2, tp=2), Layout(dp=2, cp=2, ep=2))
    for results in launch(lambda: [moved(layout) for layout in layouts], ranks=4):
        assert results == [(right, 0)] * 2


def not_finite(zero):
    made = parallelize(whole_model(GPT2), Layout(pp=2, dp=2), zero=zero, **ADAM)
    if dist.get_rank() == 3:
        next(iter(made.named_parameters().values())).data.view(-1)[:1] = torch.inf
    before = [p.clone() for p in made.named_parameters().values()]
    try:
        train_step(made, *batches(GPT2)[0])
    except ValueError as error:
        after = made.named_parameters().values()
        return str(error), all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_a_norm_that_is_not_finite_stops_all_ranks_alike():
    for rank, results in enumerate(launch(lambda: [not_finite(zero) for zero in (0, 1, 3)], ranks=4)):
        for message, equal in results:
            assert message.startswith(f"rank {rank}: the global norm of the gradients is") and equal


def refusals():
    """What wrong calls say, in the order of the calls."""
    two = Layout(pp=1, dp=2)
    calls = [
        lambda: parallelize(nn.Linear(2, 2), two),  # type: ignore[arg-type]
        lambda: parallelize(whole_model(GPT2), Layout(dp=3)),
        lambda: parallelize(whole_model(GPT2), two, zero=2),
        lambda: parallelize(whole_model(GPT2), two, zero=1, shards=1),
        lambda: parallelize(whole_model(EXPERTS), Layout(dp=2, ep=2), zero=3),
        lambda: parallelize(whole_model(GPT2), two, schedule="2f2b"),
        lambda: parallelize(whole_model(GPT2), two, sequence=True),
        lambda: parallelize(whole_model(GPT2), two, capacity_factor=1.0),
        lambda: parallelize(whole_model(EXPERTS), Layout(tp=2), sequence=True),
        lambda: parallelize(whole_model(GPT2), two, clip=0.0),
        lambda: parallelize(whole_model(GPT2), two, lr=-1.0),
        lambda: parallelize(whole_model(GPT2), Layout(pp=2), zero=3, schedule="zb_v"),
    ]
    made = parallelize(whole_model(GPT2), two, **ADAM)
    tokens, targets = batches(GPT2)[0]
    calls += [
        lambda: train_step(made, tokens[:1], targets[:1]),
        lambda: train_step(made, tokens, targets[:, :-1]),
        lambda: train_step(made, torch.cat([tokens, tokens], 1), torch.cat([targets, targets], 1)),
        lambda: train_step(made, tokens, torch.full_like(targets, -100)),
    ]
    return [said(call) for call in calls]


def said(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


SENTENCES = [
    "parallelize lays out a GPT, and this is a Linear",
    "pp=1 x dp=3 x cp=1 x tp=1 makes 3 ranks, and there are 2",
    "zero=2: expected 0, 1 or 3",
    "shards=1 is for zero=3",
    "zero=3 shards a stage over all data ranks, and ep=2 cuts these",
    "schedule='2f2b': expected one of gpipe, 1f1b",
    "sequence=True shards activations over tp, and tp=1",
    "capacity_factor=1.0 is for experts, and this model has none",
    "sequence=True leaves a rank a part of the tokens, and experts need all",
    "clip=0.0: expected a number above 0, or None",
    "lr=-1.0",
    "zero=3 cannot share a tied weight between two stages of a rank",
    "a batch of 1 sequences, and dp=2 times 1 microbatches need one each",
    "tokens (8, 12) and targets (8, 11): expected (batch, seq) of both",
    "a sequence of 24 tokens, where this model has positions for 12",
    "no target of the global batch counts",
]


def test_what_cannot_go_well_is_refused_before_anything_is_cut():
    for found in launch(refusals, ranks=2):
        wrong = [(got, right) for got, right in zip(found, SENTENCES, strict=True) if right not in got]
        assert not wrong


def one_rank_is_at_odds():
    parallelize(whole_model(GPT2), Layout(dp=2), microbatches=1 + dist.get_rank(), **ADAM)


def test_ranks_with_other_settings_are_named():
    with pytest.raises(
        Exception, match=r"rank 1 does not have the model of rank 0: .*setting 'microbatches' is 2 here"
    ):
        launch(one_rank_is_at_odds, ranks=2)


CASES = [
    (GPT2, Layout(pp=2, dp=2, cp=1, tp=2), {}),
    (GPT2, Layout(pp=2, dp=1, cp=2, tp=2), {"zero": 0, "schedule": "interleaved"}),
    (EXPERTS, Layout(pp=1, dp=2, cp=2, tp=2, ep=2), {"bias_rate": 0.125}),
]


def recorded():
    found = []
    for config, layout, options in CASES:
        made = parallelize(whole_model(config), layout, microbatches=2, **ADAM | options)
        before = len(recorder().spans)
        for batch in batches(config)[:2]:
            train_step(made, *batch)
        spans = recorder().spans[before:]
        row = [op._replace(rank=dist.get_rank()) for op in made.plan.rows[made.place["pp"]]]
        found.append((spans, row))
    return found


def test_what_two_steps_record_is_a_plan_whose_passes_are_those_of_the_schedule():
    run = launch(recorded, ranks=8, timeout=120)
    for number in range(len(CASES)):
        results = [result[number] for result in run]
        spans = [span for spans, _ in results for span in spans]
        check_plan(Trace(8, tuple(s for s in spans if s.kind not in ("barrier", "update"))).plan())
        for spans, row in results:
            passes = [span.op for span in spans if span.kind in ("F", "B")]
            assert passes[: len(row)] == row
