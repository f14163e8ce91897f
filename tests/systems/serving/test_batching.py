"""Batches: the same loop on a model and without one, its counts by hand, and prefill on other ranks than decode."""

import pytest
from shared_serving import LLAMA, model, recomputed, requests

from parallel_lab import launch
from parallel_lab.model.budget import LLAMA2_70B
from parallel_lab.network import Link
from parallel_lab.simulate import Decoding, Roofline
from parallel_lab.systems.serving import Counted, Decoder, Greedy, Request, formulas, serve, serve_apart

H100 = Roofline(989e12, 3.35e12)


def expected():
    whole = model(LLAMA)
    return {i: recomputed(whole, each.prompt, each.new_tokens) for i, each in enumerate(requests(LLAMA, 6))}


@pytest.mark.parametrize("options", [{"continuous": False}, {}, {"chunk": 3}, {"chunk": 1}], ids=str)
def test_every_batching_writes_the_same_tokens(options):
    wanted = requests(LLAMA, 6)
    log = serve(Greedy(Decoder(model(LLAMA), slots=2)), wanted, slots=2, **options)
    assert log.tokens == expected()
    counted = serve(Counted(), wanted, slots=2, **options)
    assert counted.iterations == log.iterations and counted.last == log.last
    assert sum(each.prompt_tokens for each in log.iterations) == sum(len(each.prompt) for each in wanted)


def test_a_batch_that_stands_waits_for_its_longest():
    """Two slots; a request's first token is of prefill, in an iteration of its own."""
    wanted = [Request([1], tokens) for tokens in (9, 4, 4, 4, 4)]
    still = serve(Counted(), wanted, slots=2, continuous=False)
    assert [each.decoded for each in still.iterations] == [0, 2, 2, 2, 1, 1, 1, 1, 1, 0, 2, 2, 2, 0, 1, 1, 1]
    assert still.used == 20 / (2 * 14)
    moving = serve(Counted(), wanted, slots=2)
    assert [each.decoded for each in moving.iterations] == [0, 2, 2, 2, 1, 2, 2, 2, 1, 1, 2, 2, 1]
    assert moving.used == 20 / (2 * 12)
    assert moving.last == {0: 8, 1: 3, 2: 7, 3: 11, 4: 12}
    assert moving.first[2] == 4


def test_a_chunk_bounds_the_wait():
    wanted = [Request([1] * 4, 8), Request([1] * 50, 2)]
    whole = [Request(*each[:2], arrives=2 * i) for i, each in enumerate(wanted)]
    assert serve(Counted(), whole, slots=2).stall == 50
    log = serve(Counted(), whole, slots=2, chunk=16)
    assert log.stall == 16
    assert log.first[1] == 2 + 3  # 16, 16, 16, 2


def test_idle_until_somebody_arrives():
    log = serve(Counted(), [Request([1, 2], 1, arrives=2)], slots=1)
    assert [tuple(each) for each in log.iterations] == [(0, 0), (0, 0), (2, 0)]
    assert log.used == 0


def test_what_an_iteration_reads_and_decodes():
    log = serve(Counted(), [Request([1] * 4, 3), Request([1] * 2, 2)], slots=2)
    assert [tuple(each) for each in log.iterations] == [(6, 0), (0, 2), (0, 1)]


def test_what_is_refused():
    for slots, chunk, words in ((0, None, "slots=0"), (1, 0, "chunk=0")):
        with pytest.raises(ValueError, match=words):
            serve(Counted(), [], slots=slots, chunk=chunk)
    with pytest.raises(ValueError, match="request 0: expected a prompt"):
        serve(Counted(), [Request([], 1)], slots=1)


def test_a_decode_step_on_more_gpus():
    """Reading shrinks with n, the sums do not; the cache cannot be cut below a key-value head."""
    link = Link(5e-6, 300e9)
    read, sums = zip(*(formulas.decode_step_s(LLAMA2_70B, H100, n, 8, 1000, link) for n in (1, 2, 8)), strict=True)
    assert read[0] == pytest.approx(Decoding(LLAMA2_70B.matmul_parameters, 327_680).step_s(H100, 8, 1000))
    assert read[2] == pytest.approx(read[0] / 8)
    assert sums[0] == 0 and sums[2] > 161 * 14 * 5e-6
    assert formulas.cache_bytes_per_token(LLAMA2_70B, 2, 16) == formulas.cache_bytes_per_token(LLAMA2_70B, 2, 8)
    assert formulas.prefill_s(LLAMA2_70B, H100, 1) == pytest.approx(2 * LLAMA2_70B.matmul_parameters / 3.35e12)


def apart(prefill, slots):
    return serve_apart(model(LLAMA), requests(LLAMA, 6), prefill=prefill, slots=slots)


@pytest.mark.parametrize(("ranks", "prefill", "slots"), [(2, 1, 2), (3, 1, 1), (4, 2, 2)])
def test_prefill_and_decode_on_ranks_of_their_own(ranks, prefill, slots):
    run = launch(apart, prefill, slots, ranks=ranks)
    answers = {}
    for rank, found in enumerate(run.results):
        assert bool(found) == (rank >= prefill)
        answers |= found
    assert answers == expected()
    tokens = sum(len(each.prompt) for each in requests(LLAMA, 6))
    sent = sum(run.trace.bytes_sent(rank) for rank in range(ranks))
    assert sent == tokens * formulas.cache_bytes_per_token(LLAMA, 8) + 6 * 8
    assert all(run.trace.bytes_sent(rank) == 0 for rank in range(prefill, ranks))
    names = {s.rank: set() for s in run.trace.spans}
    for s in run.trace.spans:
        names[s.rank].add(s.name)
    assert all(("prefill" in names[rank]) == (rank < prefill) for rank in range(ranks))


def alone():
    return serve_apart(model(LLAMA), [], prefill=1, slots=1)


def test_both_kinds_of_ranks_are_needed():
    with pytest.raises(Exception, match="1 of 1 ranks for prefill"):
        launch(alone, ranks=1, echo=False)
