"""Prefill and decode with a cache answer what a whole computation answers; cut over ranks they send what is counted."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from shared_serving import LLAMA, PLAIN, model, prompts, recomputed

from parallel_lab import launch
from parallel_lab.systems.serving import Decoder, formulas, generate, sampled
from parallel_lab.tensor_parallel import tensor_parallel


@pytest.mark.parametrize("config", [PLAIN, LLAMA], ids=["plain", "llama"])
def test_the_logits_are_those_of_a_whole_computation(config):
    """Also where sequences of different lengths are decoded side by side, and where a prompt is read in pieces."""
    whole, cached = model(config), model(config)
    decoder = Decoder(cached, slots=3)
    sequences = {2: prompts(config)[1], 0: prompts(config)[4]}
    for slot, tokens in sequences.items():
        decoder.prefill(torch.tensor(tokens[:-3]), slot)
        decoder.prefill(torch.tensor(tokens[-3:-1]), slot)
    logits = decoder.decode(torch.tensor([tokens[-1] for tokens in sequences.values()]), list(sequences))
    for row, tokens in zip(logits, sequences.values(), strict=True):
        torch.testing.assert_close(row, whole(torch.tensor([tokens]))[0, -1].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [PLAIN, LLAMA], ids=["plain", "llama"])
def test_a_batch_answers_what_each_sequence_answers_alone(config):
    whole = model(config)
    expected = [recomputed(whole, prompt, 12) for prompt in prompts(config)]
    decoder = Decoder(model(config), slots=5)
    assert generate(decoder, prompts(config), tokens=12) == expected
    assert decoder.cache.used_bytes == 0
    again = generate(decoder, prompts(config)[:2], tokens=12)  # slots that were used before
    assert again == expected[:2]
    stop = expected[0][4]
    cut = [answer[: answer.index(stop)] if stop in answer else answer for answer in expected]
    assert generate(decoder, prompts(config), tokens=12, stop=stop) == cut


def test_nothing_is_dropped_in_decoding():
    prompt, training = prompts(PLAIN)[0], model(replace(PLAIN, dropout=0.5)).train()
    assert generate(Decoder(training, slots=1), [prompt], tokens=4) == [recomputed(model(PLAIN), prompt, 4)]


def test_a_cache_that_forgets_its_place_answers_otherwise():
    """The wrong variant: each token is read as if it stood at the beginning."""
    decoder = Decoder(model(LLAMA), slots=1)
    decoder._where = lambda tokens, slots: Decoder._where(decoder, tokens, slots)._replace(
        positions=torch.zeros(1, tokens.shape[1], dtype=torch.int64)
    )
    prompt = prompts(LLAMA)[1]
    assert generate(decoder, [prompt], tokens=12) != [recomputed(model(LLAMA), prompt, 12)]


def test_a_sample_is_drawn_by_its_seed():
    """A cold sample is the greedy answer; two seeds write two texts, one seed writes one."""
    decoder, prompt = Decoder(model(LLAMA), slots=1), prompts(LLAMA)[1]
    cold = sampled(decoder, prompt, tokens=8, temperature=1e-6)
    assert cold == prompt + recomputed(model(LLAMA), prompt, 8)
    texts = [sampled(decoder, prompt, tokens=8, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert decoder.greedy(torch.tensor([[0.0, 3.0, 1.0]])).tolist() == [1]


def test_what_a_cache_holds():
    cache = Decoder(model(LLAMA), slots=3, longest=20).cache
    assert cache.bytes_per_token == formulas.cache_bytes_per_token(LLAMA, 8) == 2 * 2 * 16 * 8
    assert cache.reserved_bytes == 3 * 20 * cache.bytes_per_token
    cache.lengths = [4, 0, 11]
    assert cache.used_bytes == 15 * cache.bytes_per_token
    assert formulas.reserved_tokens([4, 11], 20) == 40
    assert formulas.paged_tokens([4, 11, 16], 8) == 8 + 16 + 16


def test_a_sequence_moves_to_another_cache():
    here, there = Decoder(model(LLAMA), slots=2), Decoder(model(LLAMA), slots=3)
    prompt = torch.tensor(prompts(LLAMA)[3])
    here.prefill(prompt[:-1], 1)
    there.cache.put(2, here.cache.sequence(1))
    assert here.cache.sequence(1).nbytes == here.cache.used_bytes
    last = prompt[-1:]
    assert torch.equal(there.decode(last, [2]), here.decode(last, [1]))


def test_what_is_refused():
    decoder = Decoder(model(PLAIN), slots=2, longest=6)
    with pytest.raises(ValueError, match="a slot of its own each"):
        decoder.decode(torch.tensor([1, 2]), [0, 0])
    with pytest.raises(ValueError, match="one token or more a row"):
        decoder.prefill(torch.tensor([], dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="a sequence of 7 tokens, where a slot has room for 6"):
        decoder.prefill(torch.arange(7), 0)


def alone(config):
    group = dist.group.WORLD
    decoder = Decoder(tensor_parallel(model(config), group=group), slots=1, group=group)
    sampled(decoder, prompts(config)[0], tokens=2)


def test_no_rank_samples_from_its_part_of_the_vocabulary():
    with pytest.raises(Exception, match="the model is cut over ranks"):
        launch(alone, LLAMA, ranks=1, echo=False)


def cut(config, sizes):
    """Each rank's answers, and the bytes of a token in its cache, at several numbers of ranks."""
    found = {}
    for n in sizes:
        group: Any = dist.new_group(range(n))
        if dist.get_rank() < n:
            decoder = Decoder(tensor_parallel(model(config), group=group), slots=5, group=group)
            found[n] = generate(decoder, prompts(config), tokens=8), decoder.cache.bytes_per_token
    return found


@pytest.mark.parametrize(("config", "sizes"), [(PLAIN, (1, 2, 3, 4)), (LLAMA, (1, 2, 4))], ids=["plain", "llama"])
def test_ranks_that_share_a_model_write_the_same_tokens(config, sizes):
    run = launch(cut, config, sizes, ranks=4)
    expected = [recomputed(model(config), prompt, 8) for prompt in prompts(config)]
    for rank, found in enumerate(run.results):
        assert set(found) == {n for n in sizes if rank < n}
        for n, (answers, bytes_per_token) in found.items():
            assert answers == expected
            assert bytes_per_token == formulas.cache_bytes_per_token(config, 8, n)


def one_step(config, batch):
    """The bytes that a decode step of `batch` sequences sends."""
    group = dist.group.WORLD
    decoder = Decoder(tensor_parallel(model(config).float(), group=group), slots=batch, group=group)
    generate(decoder, [[1, 2, 3]] * batch, tokens=2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_step_sends_what_is_counted(n):
    batch = 4
    trace = launch(one_step, PLAIN, batch, ranks=n).trace
    sums = [s for s in trace.spans if s.rank == 0 and s.kind == "all_reduce" and s.bytes == batch * PLAIN.width * 4]
    picks = [s for s in trace.spans if s.rank == 0 and s.kind == "all_gather"][-1:]
    assert len(sums) == formulas.decode_calls(PLAIN)
    sent = sum(s.sent_bytes for s in [*sums, *picks])
    assert sent == pytest.approx(formulas.decode_bytes(PLAIN, n, batch), abs=len(sums))
