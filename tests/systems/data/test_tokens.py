"""Byte-pair encoding over ranks against a naive one; the n-gram model against its formula; splits and what leaks."""

import math
import os
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.data import NGram, Split, Tokenizer, bpe, corpus, split

pytestmark = pytest.mark.usefixtures("by_value")
TEXT = [text.encode() for text in corpus.documents().values()]


def naive(texts, merges):
    """Counts every pair of the whole text anew before each merge."""
    found = Counter(tuple(word) for text in texts for word in bpe.words(text))
    vocabulary, out = [bytes([byte]) for byte in range(256)], []
    for _ in range(merges):
        counts = Counter()
        for word, often in found.items():
            for pair in pairwise(word):
                counts[pair] += often
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], vocabulary[pair[0]], vocabulary[pair[1]], pair))
        out.append(best)
        vocabulary.append(vocabulary[best[0]] + vocabulary[best[1]])
        joined = Counter()
        for word, often in found.items():
            joined[bpe.merged(word, best, len(vocabulary) - 1)] += often
        found = joined
    return out


def trained(texts, merges):
    found = []
    groups = [dist.new_group(list(range(world))) for world in (1, 2, 3, 4)]
    for world, group in enumerate(groups, 1):
        if dist.get_rank() < world:
            found.append(bpe.train(corpus.mine(texts, dist.get_rank(), world), merges, group=group))
    return found


def test_merges_are_those_of_a_naive_trainer_at_every_world():
    texts = TEXT[:12]
    expected = naive(texts, 80)
    assert bpe.train(texts, 80) == expected
    run = launch(trained, texts, 80, ranks=4)
    assert [merges for result in run.results for merges in result] == [expected] * 10


@pytest.mark.parametrize("text", [b"aaaaaaaa aaa", b"abababab ab ba", b"", b"a", b"\xff\x00\xff\x00"])
def test_overlaps_ties_and_texts_that_run_out(text):
    assert bpe.train([text], 20) == naive([text], 20)


def test_incremental_counts_stay_the_true_counts():
    counts = bpe.Counts(TEXT[:5])
    totals = counts.all_pairs()
    for new, pair in enumerate(bpe.train(TEXT[:5], 60), 256):
        totals.update(counts.merge(pair, new))
        fresh = Counter()
        for word, often in zip(counts.words, counts.often, strict=True):
            for neighbors in pairwise(word):
                fresh[neighbors] += often
        assert +totals == fresh


def test_any_bytes_come_back():
    tokenizer = Tokenizer(bpe.train(TEXT[:20], 200))
    dice = random.Random(0)
    for text in [*TEXT[:3], *(os.urandom(dice.randrange(200)) for _ in range(200)), "价格 é 😀 \n\t  x".encode()]:
        assert b"".join(bpe.words(text)) == text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(TEXT[0])) < 0.6 * len(TEXT[0])


def test_gathering_words_once_sends_fewer_bytes_than_an_exchange_for_each_merge_here():
    """What the head of the file says of the other way: words of this text are few."""
    texts = TEXT[:12]
    run = launch(lambda: bpe.train(corpus.mine(texts, dist.get_rank(), 2), 80), ranks=2)
    words = {word for text in texts for word in bpe.words(text)}
    assert run.trace.bytes_sent(0) > sum(len(word) + 8 for word in words)


def test_ngram_probabilities_are_a_distribution_and_those_of_the_formula():
    model = NGram([b"abracadabra", b"cab"], order=3)
    for context in (b"ab", b"zz", b"a", b"ra"):
        assert sum(model.probabilities(context + bytes([byte]))[-1] for byte in range(256)) == pytest.approx(1)
    # After "a" of the bytes of both texts: b 3 times, c once, d once; 3 kinds. One byte alone: a 6 of 14, 5 kinds.
    unigram = (3 + 5 / 256) / (14 + 5)
    assert NGram([b"abracadabra", b"cab"], order=2).probabilities(b"ab")[1] == pytest.approx(
        (3 + 3 * unigram) / (5 + 3)
    )
    assert NGram([b"abracadabra", b"cab"], order=1).probabilities(b"b")[0] == pytest.approx(unigram)
    assert NGram([], order=2).bits_per_byte([b"xyz"]) == pytest.approx(8)
    assert NGram([b"x"], order=4).probabilities(b"").size == 0


def test_bits_per_byte_are_a_mean_over_bytes():
    model = NGram(TEXT[:5])
    one, other = TEXT[6], TEXT[7]
    both = model.bits_per_byte([one, other])
    parts = model.bits_per_byte([one]) * len(one) + model.bits_per_byte([other]) * len(other)
    assert both == pytest.approx(parts / (len(one) + len(other)))


def test_a_document_stays_on_its_side_and_its_copies_with_it():
    texts = list(corpus.documents().values())
    whole, part = split.by_document(texts, 0.3, seed=1), split.by_document(texts[:40], 0.3, seed=1)
    assert sorted(whole.train + whole.held_out) == sorted(texts)
    assert set(part.train) <= set(whole.train)
    assert set(part.held_out) <= set(whole.held_out)
    assert not set(split.by_document(texts * 2, 0.3).train) & set(split.by_document(texts * 2, 0.3).held_out)
    held = [split.is_held_out(f"document {n}", 0.1) for n in range(20_000)]
    assert abs(sum(held) / len(held) - 0.1) < 4 * math.sqrt(0.09 / len(held))


def test_chunks_cover_a_text():
    assert split.chunks("abcdefg", 3) == ["abc", "def", "g"]
    assert split.chunks("abcdef", 3) == ["abc", "def"]
    assert split.chunks("abcdefg", 4, 2) == ["abcd", "cdef", "efg"]
    assert split.chunks("", 4) == [""]


def test_overlap_is_that_of_the_runs_themselves():
    one = Split(["the harbor wakes", "before the town"], ["harbor wakes before", "no"])
    runs = [text[n : n + 6] for text in one.held_out for n in range(len(text) - 5)]
    assert split.overlap(one, run=6) == sum(any(run in text for text in one.train) for run in runs) / len(runs)
    assert split.overlap(Split(["abc"], ["x"]), run=6) == 0


def test_a_split_after_chunking_leaks_and_looks_better():
    """Two seeds; at each, chunks at random look better than documents, and overlapping chunks much better."""
    documents = list(corpus.unique_documents().values())

    def cut(texts, stride=None):
        return [piece for text in texts for piece in split.chunks(text, 400, stride)]

    for seed in range(2):
        whole = split.by_document(documents, 0.2, seed)
        honest = split.leak(Split(cut(whole.train), cut(whole.held_out)), order=4)
        at_random = split.leak(split.at_random(cut(documents), 0.2, seed), order=4)
        overlapping = split.leak(split.at_random(cut(documents, 200), 0.2, seed), order=4)
        assert honest.bits_per_byte > at_random.bits_per_byte > overlapping.bits_per_byte + 0.1
        assert overlapping.overlap > 0.5 > 10 * honest.overlap
