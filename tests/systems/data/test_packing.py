"""Packings hold every token once; bounds, costs, and a packed document that gives what it gives alone."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F

from parallel_lab.systems.data import packing
from parallel_lab.systems.data.packing import Piece

WAYS = (packing.padded, packing.concatenate_and_cut, packing.first_fit_decreasing, packing.best_fit_decreasing)


def fewest(lengths, seq):
    """By trying: the fewest bins for a few items."""
    items, best = sorted(lengths, reverse=True), len(lengths)

    def place(number, room):
        nonlocal best
        if len(room) >= best:
            return
        if number == len(items):
            best = len(room)
            return
        for bin_ in sorted({free: index for index, free in enumerate(room)}.values()):
            if room[bin_] >= items[number]:
                place(number + 1, [*room[:bin_], room[bin_] - items[number], *room[bin_ + 1 :]])
        place(number + 1, [*room, seq - items[number]])

    place(0, [])
    return best


@pytest.mark.parametrize("pack", WAYS)
def test_every_token_stands_once_and_no_sequence_is_too_long(pack):
    dice = random.Random(0)
    for lengths, seq in (([5, 0, 30, 8, 8, 1], 8), ([], 4), ([3], 4), ([dice.randrange(90) for _ in range(60)], 32)):
        packed = pack(lengths, seq)
        places = [(d, n) for d, start, length in itertools.chain(*packed) for n in range(start, start + length)]
        assert sorted(places) == [(d, n) for d, length in enumerate(lengths) for n in range(length)]
        assert all(0 < sum(piece.length for piece in sequence) <= seq for sequence in packed)
        cost = packing.cost(packed, lengths, seq)
        assert cost.sequences >= cost.least
        assert cost.waste == pytest.approx(1 - sum(lengths) / (len(packed) * seq) if packed else 0)


def test_the_bound_of_first_fit_decreasing_holds_and_the_least_number_may_be_out_of_reach():
    dice = random.Random(1)
    for _ in range(60):
        lengths = [dice.randrange(1, 21) for _ in range(9)]
        best = fewest(lengths, 20)
        assert best >= packing.cost([], lengths, 20).least
        for pack in (packing.first_fit_decreasing, packing.best_fit_decreasing):
            assert best <= len(pack(lengths, 20)) <= 11 / 9 * best + 6 / 9
    assert fewest([11, 11, 11], 20) == 3 > packing.cost([], [11, 11, 11], 20).least == 2


def test_best_fit_takes_the_fullest_sequence_and_first_fit_the_first():
    lengths = [5, 6, 3]  # sorted 6, 5, 3: sequences with room 4 and 5 of 10
    assert packing.first_fit_decreasing(lengths, 10) == [[Piece(1, 0, 6), Piece(2, 0, 3)], [Piece(0, 0, 5)]]
    lengths = [6, 7, 3]
    assert packing.best_fit_decreasing(lengths, 10) == [[Piece(1, 0, 7), Piece(2, 0, 3)], [Piece(0, 0, 6)]]
    lengths = [5, 7, 3, 6]  # rooms 3, 4, 5 when the 3 comes
    assert packing.best_fit_decreasing(lengths, 10)[0] == [Piece(1, 0, 7), Piece(2, 0, 3)]


def test_concatenation_wastes_less_than_one_sequence_and_cuts_more():
    lengths = [random.Random(n).randrange(1, 200) for n in range(100)]
    row, bins = packing.concatenate_and_cut(lengths, 64), packing.best_fit_decreasing(lengths, 64)
    of_row, of_bins = (packing.cost(one, lengths, 64) for one in (row, bins))
    assert of_row.sequences == of_row.least
    assert of_bins.cuts == sum((length - 1) // 64 for length in lengths) < of_row.cuts


def test_scores_count_the_mask():
    lengths, seq = [5, 3, 9, 2], 8
    for pack in WAYS:
        packed = pack(lengths, seq)
        batch = packing.collate(packed, [torch.arange(n) for n in lengths], seq)
        real = batch.documents >= 0
        pairs = packing.attention_mask(batch.documents) & real[:, :, None] & real[:, None, :]
        assert packing.scores(packed, seq) == int(pairs.sum())
        assert packing.scores(packed, seq, masked=False) == len(packed) * 36


def attend(tokens, positions, mask=None):
    """One layer of causal attention over embeddings of tokens and positions."""
    generator = torch.Generator().manual_seed(0)
    of_token, of_position, mix = (torch.randn(n, 16, generator=generator, dtype=torch.float64) for n in (50, 40, 16))
    x = of_token[tokens] + of_position[positions]
    if mask is None:
        return F.scaled_dot_product_attention(x, x @ mix, x, is_causal=True)
    return F.scaled_dot_product_attention(x, x @ mix, x, attn_mask=mask)


def test_a_packed_document_gives_what_it_gives_alone_only_with_mask_and_positions():
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(50, (length,), generator=generator) for length in (9, 4, 7, 12, 3, 1)]
    packed = packing.collate(packing.best_fit_decreasing([len(d) for d in documents], 16), documents, 16)
    mask = packing.attention_mask(packed.documents)
    right = attend(packed.tokens, packed.positions, mask)
    unmasked = attend(packed.tokens, packed.positions)
    running = attend(packed.tokens, torch.arange(16).expand_as(packed.positions), mask)
    seen_wrong = [False, False]
    for number, tokens in enumerate(documents):
        alone = attend(tokens[None], torch.arange(len(tokens))[None])[0]
        own = packed.documents == number
        assert torch.allclose(right[own], alone, atol=1e-12)
        seen_wrong[0] |= not torch.allclose(unmasked[own], alone)
        seen_wrong[1] |= not torch.allclose(running[own], alone)
    assert seen_wrong == [True, True]


def test_targets_stay_within_a_document():
    packed = packing.collate([[Piece(0, 0, 3), Piece(1, 0, 2)]], [torch.tensor([5, 6, 7]), torch.tensor([8, 9])], 6)
    assert packed.tokens.tolist() == [[5, 6, 7, 8, 9, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert packing.targets(packed).tolist() == [[6, 7, -100, 9, -100, -100]]


def test_positions_begin_again_with_each_piece_of_a_document_that_was_cut():
    for way in WAYS:
        packed = packing.collate(way([10, 2], 4), [torch.arange(10), torch.arange(2)], 4)
        assert packed.positions.max() < 4, way.__name__
