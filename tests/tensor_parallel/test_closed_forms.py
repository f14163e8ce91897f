"""What a step sends, in which order, and what a rank holds: the closed forms to the byte, the plan to the op."""

import dataclasses
import itertools

import pytest
import torch
import torch.distributed as dist
from shared_tp import GPT2, LLAMA, whole_model, worlds
from torch.utils.checkpoint import checkpoint

from parallel_lab import launch
from parallel_lab.model import formulas as whole
from parallel_lab.plan import check_plan
from parallel_lab.tensor_parallel import formulas, plan, sum_replicated_gradients, tensor_parallel, vocab_cross_entropy
from parallel_lab.trace import Trace, recorder, tag
from parallel_lab.trace.memory import SavedTensors, held_bytes

BATCH = 3
DIVIDES = dataclasses.replace(GPT2, seq=12, vocab=252)
CONFIGS = {
    "gpt": DIVIDES,
    "llama": dataclasses.replace(DIVIDES, **LLAMA | {"kv_heads": 2}),
    "one key-value head": dataclasses.replace(DIVIDES, kv_heads=1, layers=1),
    "dropout": dataclasses.replace(DIVIDES, dropout=0.1, layers=1),
    "padded": dataclasses.replace(GPT2, seq=7, vocab=253, tied=False),
}


def step(config, group, sequence, steps=1):
    """The spans of the steps, the bytes saved for backward in the first, and those of the parameters."""
    torch.manual_seed(0)  # ranks of a smaller group have drawn more
    model = tensor_parallel(whole_model(config), sequence=sequence, group=group)
    tokens = torch.arange(BATCH * config.seq).view(BATCH, -1) % config.vocab
    before, saved_bytes = len(recorder().spans), []
    for _ in range(steps):
        with SavedTensors(model) as saved:
            loss = vocab_cross_entropy(model(tokens), tokens.clone(), vocab=config.vocab, group=group)
        saved_bytes.append(saved.bytes)
        loss.backward()
        sum_replicated_gradients(model)
    return recorder().spans[before:], saved_bytes[0], held_bytes(model)["parameters"]


def test_bytes_sent_and_held_are_the_closed_forms():
    """At 1, 2 and 4 ranks, both ways, in float64; where n does not divide the sequence, it is padded."""

    def fn():
        found, groups = {}, dict(worlds(1, 2, 4))
        for (name, config), sequence, (n, group) in itertools.product(CONFIGS.items(), (False, True), groups.items()):
            if group:
                spans, saved_bytes, parameter_bytes = step(config, group, sequence)
                found[name, n, sequence] = sum(s.sent_bytes for s in spans), saved_bytes, parameter_bytes
        return found

    results = launch(fn, ranks=4, timeout=120).results
    for result in results:
        for (name, n, sequence), (sent, _, parameter_bytes) in result.items():
            config = CONFIGS[name]
            assert sent == pytest.approx(formulas.step_bytes(config, BATCH, n, sequence, 8), abs=8), (name, n, sequence)
            assert parameter_bytes == 8 * formulas.parameters(config, n), (name, n, sequence)
    for (name, n, sequence), (_, saved_bytes, _) in results[0].items():
        if name != "padded":
            expected = formulas.activation_bytes(CONFIGS[name], BATCH, n, sequence, 8)
            assert saved_bytes == expected, (name, n, sequence, saved_bytes, expected)


def test_the_closed_forms_at_one_rank_are_those_of_the_whole_model():
    for config in CONFIGS.values():
        assert formulas.parameters(config, 1) == whole.parameter_count(config)
        assert formulas.step_bytes(config, BATCH, 1, True) == 0
        if not config.dropout:
            block = whole.block_activation_bytes(config, BATCH)
            assert formulas.block_activation_bytes(config, BATCH, 1) == block


def test_the_closed_forms_in_numbers_of_b_s_h():
    """Per block 4 + 12/n, and with the sequence sharded 2 + 14/n; beside it statistics of norms and the log-sum-exp."""
    for n in (1, 2, 3, 4, 12):
        tokens, h, a = BATCH * DIVIDES.seq, DIVIDES.width, DIVIDES.heads
        noted = tokens * (4 + a / n), tokens * (4 + a) / n
        for sequence, numbers in ((False, 4 + 12 / n), (True, 2 + 14 / n)):
            found = formulas.block_activation_bytes(DIVIDES, BATCH, n, sequence, 4) / 4
            assert found == pytest.approx(numbers * tokens * h + noted[sequence])
    assert formulas.replicated_numbers(DIVIDES) == (6 * DIVIDES.layers + 2) * DIVIDES.width
    assert formulas.gathered_logits_bytes(96, 50_304, 8) / formulas.loss_bytes(96, 8) == pytest.approx(50_304 / 6)
    with pytest.raises(ValueError, match="n=0: expected at least 1 rank"):
        formulas.loss_bytes(1, 0)


@pytest.mark.parametrize("sequence", [False, True])
def test_a_recorded_step_is_the_plan(sequence):
    """Kind, number, pass and phase of every collective, in order; the second step has the next number."""
    spans = launch(lambda: step(GPT2, dist.group.WORLD, sequence, 2)[0], ranks=3).results
    recorded = Trace(3, tuple(s for each in spans for s in each)).plan()
    check_plan(recorded)
    steps = [plan(GPT2.layers, 3, sequence, mb=mb, partial=sequence) for mb in range(2)]
    for each in steps:
        check_plan(each)
    assert recorded.rows == tuple(first + second for first, second in zip(*(s.rows for s in steps), strict=True))


def test_a_stage_s_collectives_are_told_apart():
    """An executor names stage and microbatch; what it sends there is a plan, each collective with its own name."""

    def fn():
        model, tokens = tensor_parallel(whole_model(GPT2)), torch.arange(8).view(1, -1)
        before = len(recorder().spans)
        for mb in (4, 5):
            with tag(part=1, mb=mb):
                loss = vocab_cross_entropy(model(tokens), tokens, vocab=GPT2.vocab)
            loss.backward()
        return recorder().spans[before:]

    results = launch(fn, ranks=2).results
    check_plan(Trace(2, tuple(s for each in results for s in each)).plan())
    assert {(s.part, s.mb) for s in results[0]} == {(1, 4), (1, 5)}
    assert {s.phase.partition("/")[0] for s in results[0]} == {"forward", "loss", "backward"}


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="layers=0, ranks=2: expected at least 1 of each"):
        plan(0, 2)


def test_recomputed_collectives_have_a_phase_of_their_own():
    """A step under `torch.utils.checkpoint` is a plan, with the forward collectives of blocks once more."""

    def fn():
        model = tensor_parallel(whole_model(GPT2))
        for block in model.blocks:
            block.forward = lambda *args, f=block.forward: checkpoint(f, *args, use_reentrant=False)
        before, tokens = len(recorder().spans), torch.arange(8).view(1, -1)
        vocab_cross_entropy(model(tokens), tokens, vocab=GPT2.vocab).backward()
        return recorder().spans[before:]

    results = launch(fn, ranks=2).results
    check_plan(Trace(2, tuple(s for each in results for s in each)).plan())
    again = [s for s in results[0] if s.phase == "recompute"]
    assert 1 <= len(again) // GPT2.layers <= 2 and {s.kind for s in again} == {"all_reduce"}
