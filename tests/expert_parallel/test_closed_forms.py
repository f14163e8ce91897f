"""What a step sends, in which order: the closed forms to the byte, the plan to the op."""

import pytest
import torch
import torch.distributed as dist
from shared_ep import MOE, all_to_expert_0, batches_of, cut, part_of_loss, whole_model, worlds
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.expert_parallel import formulas, mixtures, plan, reduce_gradients
from parallel_lab.plan import check_plan
from parallel_lab.trace import Trace, recorder, tag

ROW = MOE.width * 8
SEQUENCES = 2  # a rank


def step(model, group, passes=1):
    """The spans of forward and backward passes on this rank's sequences; and its tokens for each expert, by layer."""
    x, y = batches_of(MOE, SEQUENCES * group.size(), 1)[0]
    mine = slice(group.rank() * SEQUENCES, (group.rank() + 1) * SEQUENCES)
    before = len(recorder().spans)
    for _ in range(passes):
        part_of_loss(model, x[mine], y[mine], y.numel()).backward()
    return recorder().spans[before:], [mixture.counts.tolist() for mixture in mixtures(model)]


def sent(spans, phase):
    """Of rows and of counts."""
    return [sum(s.sent_bytes for s in spans if s.phase == phase and (s.kind == "counts") == k) for k in (False, True)]


def test_bytes_sent_are_the_closed_forms_whatever_the_load():
    """At 1 to 4 ranks, each rank's own, both ways: balanced by nothing, all to expert 0, and with capacity."""
    kinds = {"free": {}, "all to expert 0": {"change": all_to_expert_0}, "capacity": {"capacity_factor": 1.25}}

    def fn():
        found = {}
        for n, group in worlds(1, 2, 3, 4).items():
            for kind, options in kinds.items():
                if group:
                    spans, counts = step(cut(MOE, group, **options), group)
                    found[kind, n] = *sent(spans, "forward"), *sent(spans, "backward"), counts
        return found

    results = launch(fn, ranks=4, timeout=120).results
    for rank, result in enumerate(results):
        for (kind, n), (rows, counts, back, none, _) in result.items():
            load = zip(*(each[kind, n][-1] for each in results[:n]), strict=True)  # by layer, rank and expert
            if kind == "capacity":
                layers = [formulas.capacity_layer_bytes(SEQUENCES * 6, 2, 12, ROW, n, 1.25)] * MOE.layers
            else:
                layers = [formulas.layer_bytes(of_layer, ROW, rank) for of_layer in load]
            forward, backward = (sum(way) for way in zip(*layers, strict=True))
            assert rows == back == round(backward) and none == 0, (kind, n, rank)  # exact
            assert counts == pytest.approx(forward - backward, abs=MOE.layers), (kind, n, rank)  # a ring's n-th parts


def test_a_balanced_load_is_its_closed_form_and_gathering_sends_n_over_k_times_as_much():
    for n in (2, 4):
        load = [[2 * 24 // 12] * 12] * n  # 24 tokens, two choices each
        balanced = formulas.balanced_layer_bytes(24, 2, 12, ROW, n)
        assert formulas.layer_bytes(load, ROW, 1) == pytest.approx(balanced)
        whole = formulas.gathered_layer_bytes(24, ROW, n).backward
        assert whole / balanced.backward == pytest.approx(n / 2)
        padded = formulas.capacity_layer_bytes(24, 2, 12, ROW, n, 1.0)
        assert padded.backward == pytest.approx(balanced.backward)


@pytest.mark.parametrize("options", [{}, {"capacity_factor": 1.0}])
def test_a_recorded_step_is_the_plan(options):
    """Kind, number, pass and phase of every exchange, in order; the second pass has the next number."""

    def fn():
        model, group = cut(MOE, dist.group.WORLD, **options), dist.group.WORLD
        spans, _ = step(model, group, passes=2)
        reduce_gradients(model)
        return [*spans, recorder().spans[-1]]

    results = launch(fn, ranks=3).results
    recorded = Trace(3, tuple(s for each in results for s in each)).plan()
    check_plan(recorded)
    steps = [plan(MOE.layers, 3, mb=mb, reduced=mb == 1) for mb in range(2)]
    for each in steps:
        check_plan(each)
    assert recorded.rows == tuple(first + second for first, second in zip(*(s.rows for s in steps), strict=True))


def test_a_stage_s_exchanges_are_told_apart_and_what_is_computed_again_is_named_so():
    """An executor names stage and microbatch; a block under `torch.utils.checkpoint` sends its forward once more."""

    def fn():
        model, group = cut(MOE, dist.group.WORLD), dist.group.WORLD
        spans = []
        for mb in (4, 5):
            with tag(part=1, mb=mb):
                spans += step(model, group)[0]
        for block in model.blocks:
            block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
        return spans, step(model, group)[0]

    results = launch(fn, ranks=2).results
    for place in (0, 1):
        check_plan(Trace(2, tuple(s for each in results for s in each[place])).plan())
    assert {(s.part, s.mb) for s in results[0][0]} == {(1, 4), (1, 5)}
    again = [s.kind for s in results[0][1] if s.phase == "recompute"]
    assert again.count("counts") == again.count("dispatch") == MOE.layers


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="layers=0, ranks=2: expected at least 1 of each"):
        plan(0, 2)


def test_bytes_in_bfloat16_are_half():
    """Rows travel in the dtype of the tokens; counts stay int64."""

    def fn():
        found = []
        for dtype in (torch.float32, torch.bfloat16):
            spans, _ = step(
                cut(MOE, dist.group.WORLD, lambda model, dtype=dtype: whole_model(MOE, dtype)), dist.group.WORLD
            )
            found.append((sent(spans, "backward")[0], sent(spans, "forward")[1]))
        return found

    for (single, counts), (half, same) in launch(fn, ranks=2).results:
        assert counts == same == MOE.layers * 48 and 0.4 < half / single < 0.6
