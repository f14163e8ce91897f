"""Six kinds of data: what they are made of, how a sample of each is read, and that a model learns something of each."""

import re

import pytest
import torch

from parallel_lab.model import GPTConfig, build, kinds, loss, text_batches

TINY = GPTConfig(vocab=256, seq=24, layers=1, heads=2, width=16, positions="rotary", norm="rms", gated=True, bias=False)


def test_every_kind_is_bytes_in_two_splits():
    for kind in kinds.KINDS:
        train, held_out = kinds.tokens(kind), kinds.tokens(kind, "validation")
        assert train.dtype == torch.uint8 and len(train) + len(held_out) > 30_000
        assert len(held_out) == (len(train) + len(held_out)) // 10
        assert 2 < kinds.frequency_bits(kind) < 6
        assert all(0 <= token < 256 for token in kinds.prompt(kind))


def test_what_they_hold():
    assert "def " in kinds.readable("code", kinds.tokens("code").tolist())
    dialogue = kinds.readable("dialogue", kinds.tokens("dialogue").tolist())
    assert dialogue.startswith(">>> ") and dialogue.count(">>> ") > 300 and '"""' not in dialogue
    sums = kinds.readable("arithmetic", kinds.tokens("arithmetic", "validation").tolist())
    whole = re.findall(r"(?<=;)(\d+)\+(\d+)=(\d+)(?=;)", sums)
    assert len(whole) > 1000 and all(int(a) + int(b) == int(c) for a, b, c in whole)


def test_a_digit_and_a_tune_can_be_read():
    picture = kinds.tokens("digits")[:65].tolist()
    assert picture[0] == kinds.IMAGE_MARK and max(picture[1:]) == 16
    rows = kinds.readable("digits", picture).split("\n")
    assert len(rows) == 8 and {len(row) for row in rows} == {8} and "@" in "".join(rows)
    assert kinds.readable("melody", b"\n<~~~>~C;\x3d") == "| C4 ~ ~ ~ D4 ~ G4 B3 C#4"
    tunes = bytes(kinds.tokens("melody").tolist()).decode().split("\n")[1:]
    lengths = {len(each) for each in tunes[:-1]}  # the last one is cut
    assert len(lengths) <= len(kinds.TUNES)


def test_a_small_model_learns_from_each():
    for kind in kinds.KINDS:
        model, data = build(TINY, seed=0), kinds.tokens(kind)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        losses = []
        for tokens, targets in text_batches(16, 8, 25, data=data):
            optimizer.zero_grad()
            each = loss(model(tokens), targets)
            each.backward()
            optimizer.step()
            losses.append(each.item())
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), kind


def test_a_kind_that_is_not_there():
    with pytest.raises(ValueError, match="no kind 'video': expected one of prose, code"):
        kinds.tokens("video")
