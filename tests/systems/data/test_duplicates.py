"""Duplicates over ranks: the same at every world, against all pairs by hand; MinHash against datasketch and its law."""

import itertools
import math
import random
import subprocess
import sys

import datasketch
import numpy as np
import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.data import corpus, duplicates, exchange, minhash

pytestmark = pytest.mark.usefixtures("by_value")
WORDS = [f"word{n}" for n in range(400)]


def related(share, length=300, seed=0):
    """Two lists of words that have about `share` of their words in common."""
    dice = random.Random(seed)
    same = dice.sample(WORDS[: length // 2], length // 2)
    return same, [word if dice.random() < share else f"other{n}" for n, word in enumerate(same)]


def texts():
    """Documents with exact and near twins that are far apart, so that they stand on different ranks."""
    docs = [text for text in corpus.paragraphs()[:160] if len(text.split()) > 12]
    near = [" ".join([*docs[n].split()[:-1], "changed"]) for n in (3, 17, 40)]
    return [*docs, *near, docs[5], docs[8], near[1] + " again"]


def by_hand(docs, least):
    sets = [minhash.shingles(text) for text in docs]
    pairs = itertools.combinations(range(len(docs)), 2)
    return {(a, b): minhash.jaccard(sets[a], sets[b]) for a, b in pairs if minhash.jaccard(sets[a], sets[b]) >= least}


def deduplicate(docs):
    found = []
    groups = [dist.new_group(list(range(world))) for world in (1, 2, 3, 4)]
    for world, group in enumerate(groups, 1):
        if dist.get_rank() < world:
            own = corpus.mine(docs, dist.get_rank(), world)
            found.append((duplicates.exact(own, group=group), duplicates.near(own, least=0.7, group=group)))
    return found


def test_every_world_finds_what_all_pairs_by_hand_give():
    docs = texts()
    run = launch(deduplicate, docs, ranks=4)
    first, expected = set(), by_hand(docs, 0.7)
    keep = [text not in first and not first.add(text) for text in docs]
    assert keep.count(False) >= 2
    for world in (1, 2, 3, 4):
        of_ranks = [run[rank][world - 1 - rank] for rank in range(world)]  # rank r is in the worlds from r + 1 on
        assert [one for flags, _ in of_ranks for one in flags] == keep
        for _, near in of_ranks:
            assert near == of_ranks[0][1]
            assert near.pairs.keys() <= expected.keys()  # verified: no pair that is none
            assert all(near.pairs[pair] == expected[pair] for pair in near.pairs)
            missed = expected.keys() - near.pairs.keys()  # by the law of LSH, about 0.97 and more are found
            assert len(missed) <= 0.2 * len(expected)


def test_without_verification_there_would_be_false_pairs():
    run = launch(lambda docs: duplicates.near(corpus.mine(docs, dist.get_rank(), 2), least=0.7), texts(), ranks=2)
    assert run[0].candidates > len(run[0].pairs)


def test_a_rank_without_documents_takes_part():
    def some():
        own = ["the same text of a few words"] * 2 if dist.get_rank() == 1 else []
        return duplicates.exact(own), duplicates.near(own)

    run = launch(some, ranks=3)
    assert [flags for flags, _ in run.results] == [[], [True, False], []]
    assert run[0][1].pairs == {(0, 1): 1.0}
    assert run[0][1].clusters == [[0, 1]]


def test_components_and_what_is_dropped_within_and_across_splits():
    clusters = duplicates.components([(1, 2), (5, 9), (2, 7), (4, 9)])
    assert clusters == [[1, 2, 7], [4, 5, 9]]
    assert duplicates.dropped(clusters) == {2, 7, 5, 9}
    assert duplicates.dropped(clusters, held_out=[5, 7, 8]) == {1, 2, 4, 9}  # the test keeps its copy
    assert duplicates.crossing(clusters, held_out=[5, 9, 4, 7]) == [[1, 2, 7]]


def test_a_key_is_the_same_in_every_process_and_pythons_hash_is_not():
    keys = "print(key_of('a text'), key_of(b'a text'), hash('a text'))"
    program = f"from parallel_lab.systems.data.exchange import key_of\n{keys}"
    run = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                       capture_output=True, text=True, check=True).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert run[0][0] == run[0][1] == run[1][0] == str(exchange.key_of("a text"))
    assert run[0][2] != run[1][2]


def test_estimates_are_as_exact_as_datasketch_and_as_the_law_says():
    count = 256
    for share in (0.3, 0.8):
        one, other = related(share)
        truth = len(set(one) & set(other)) / len(set(one) | set(other))
        sets = [np.unique([exchange.key_of(word) % minhash.PRIME for word in words]) for words in (one, other)]
        signed = minhash.signatures(sets, count, seed=1)
        theirs = []
        for words in (one, other):
            theirs.append(datasketch.MinHash(num_perm=count, seed=1))
            theirs[-1].update_batch([word.encode() for word in words])
        assert minhash.jaccard(*sets) == pytest.approx(truth)
        four_deviations = 4 * math.sqrt(truth * (1 - truth) / count)
        assert abs(minhash.estimate(*signed) - truth) < four_deviations
        assert abs(theirs[0].jaccard(theirs[1]) - truth) < four_deviations


def test_the_estimate_is_unbiased_and_bands_meet_with_the_probability_of_the_formula():
    one, other = related(0.75)
    sets = [np.unique([exchange.key_of(word) % minhash.PRIME for word in words]) for words in (one, other)]
    truth, trials, bands, rows = minhash.jaccard(*sets), 400, 5, 4
    estimates, met = [], 0
    for seed in range(trials):
        signed = minhash.signatures(sets, bands * rows, seed)
        estimates.append(minhash.estimate(*signed))
        keys = [minhash.band_keys(each, bands) for each in signed]
        met += any(a == b for a, b in zip(*keys, strict=True))
    assert abs(np.mean(estimates) - truth) < 4 * math.sqrt(truth * (1 - truth) / (bands * rows * trials))
    law = minhash.probability(truth, bands, rows)
    assert abs(met / trials - law) < 4 * math.sqrt(law * (1 - law) / trials)


def test_the_formulas():
    assert minhash.probability(0.8, 20, 5) == pytest.approx(0.9996, abs=1e-4)
    assert minhash.probability(0.5, 20, 5) == pytest.approx(0.470, abs=1e-3)
    assert minhash.threshold(20, 5) == pytest.approx(0.549, abs=1e-3)
    for bands in (2, 5, 20, 1000):
        at_threshold = minhash.probability(minhash.threshold(bands, 5), bands, 5)
        assert 1 - 1 / math.e < at_threshold <= 0.75 + 1e-12


def test_bands_are_told_apart_and_must_be_equal():
    assert len(set(minhash.band_keys(np.zeros(12, np.int64), 4))) == 4
    with pytest.raises(ValueError, match="12 minima cannot be cut into 5 equal bands"):
        minhash.band_keys(np.zeros(12, np.int64), 5)


def test_shingles_are_runs_of_words_without_signs_and_case():
    assert np.array_equal(minhash.shingles("The harbor, wakes!"), minhash.shingles("the HARBOR wakes"))
    assert len(minhash.shingles("one two three four")) == 2
    assert len(minhash.shingles("one")) == 1
    assert minhash.signatures([], 8).shape == (0, 8)


def test_rows_go_to_their_owners_and_nobody_gets_all():
    def swap():
        rank, world = dist.get_rank(), dist.get_world_size()
        rows = exchange.table([(key, rank) for key in range(rank + 3)], 2)
        return torch.cat(exchange.exchange(exchange.by_owner(rows, rows[:, 0] % world, world))).tolist()

    run = launch(swap, ranks=3)
    for owner in range(3):
        expected = [[key, rank] for rank in range(3) for key in range(rank + 3) if key % 3 == owner]
        assert run[owner] == expected
