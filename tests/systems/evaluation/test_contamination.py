"""N-grams of the evaluation in the training text, over ranks, and what they do to a score."""

import math
from itertools import chain

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.evaluation.byte_model import bits_per_byte, shuffled_text, train
from parallel_lab.systems.evaluation.contamination import measured_gap, ngrams, overlap, words

COPIED = "The quick brown fox jumps over the lazy dog while nobody looks at it."
FRESH = "Colorless green ideas sleep furiously under the old bridge of the town."
HALF = "The quick brown fox jumps over the lazy cat and then it went home again."
TRAINING = [
    ["Nothing of interest stands here, nor in the next sentence of it."],
    ["Before it: the QUICK brown fox jumps over the lazy dog - while nobody looks at it! After it."],
    [],
    ["A line.", "Another line, of eight words or of nine."],
]


def find(n: int) -> list[float]:
    return overlap([COPIED, FRESH, HALF, "too short"], TRAINING[dist.get_rank()], n=n)


def test_a_copy_on_any_rank_is_found_on_all():
    run = launch(lambda: (find(8), find(3), overlap([], ["a"])), ranks=4, device="cpu")
    for eight, three, none in run.results:
        assert eight[:2] == [1.0, 0.0]
        assert eight[2] == pytest.approx(8 / 15)  # "the quick ... the lazy"
        assert math.isnan(eight[3])
        assert three[0] == 1.0
        assert none == []
    distinct = len({gram for each in (COPIED, FRESH, HALF) for gram in ngrams(each, 8)})
    reduced = [s.bytes for s in run.trace.of(0) if s.kind == "all_reduce"]
    assert reduced[0] == distinct  # a byte for each n-gram, however long the training text is


def test_one_process_finds_the_same():
    one = launch(lambda: overlap([COPIED, FRESH, HALF], chain(*TRAINING), n=8), ranks=1, device="cpu")[0]
    assert one == [1.0, 0.0, pytest.approx(8 / 15)]


def test_n_grams_ignore_case_and_punctuation():
    assert words("A, b-C!") == ["a", "b", "c"]
    assert list(ngrams("a b c", 2)) == ["a b", "b c"]
    assert list(ngrams("a b", 3)) == []


def test_text_that_was_seen_scores_better():
    """Sixty-four copies of one half widen the gap between the halves by far more than 0.1 bits per byte."""
    copied, fresh = measured_gap(64, seed=1), measured_gap(0, seed=1)
    assert (copied.unseen - copied.seen) - (fresh.unseen - fresh.seen) > 0.2


def test_a_byte_model_reads_its_text_better_than_noise():
    data = shuffled_text(0)
    model = train(data[:4096], seed=0, steps=40)
    noise = torch.randint(256, (4096,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert bits_per_byte(model, data[:4096]) < bits_per_byte(model, noise)
