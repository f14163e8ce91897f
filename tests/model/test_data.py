"""Text batches: the global batch is the same whatever the world; tokens."""

import subprocess
import sys

import pytest
import torch

from parallel_lab.model import shard_sizes, share, text, text_batches, tokenize


@pytest.mark.parametrize(
    ("total", "world", "sizes"), [(10, 3, [4, 3, 3]), (8, 4, [2] * 4), (2, 3, [1, 1, 0]), (0, 1, [0])]
)
def test_shard_sizes(total, world, sizes):
    assert shard_sizes(total, world) == sizes


@pytest.mark.parametrize(("total", "world"), [(-1, 2), (4, 0)])
def test_shard_sizes_refuses(total, world):
    with pytest.raises(ValueError, match="cannot share"):
        shard_sizes(total, world)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [4, 10])
def test_shares_in_rank_order_are_the_global_batch(world, batch):
    whole = list(text_batches(16, batch, steps=3, seed=5))
    ranks = [list(text_batches(16, batch, steps=3, rank=rank, world=world, seed=5)) for rank in range(world)]
    assert [len(mine[0][0]) for mine in ranks] == shard_sizes(batch, world)
    for step, (tokens, targets) in enumerate(whole):
        assert torch.equal(torch.cat([mine[step][0] for mine in ranks]), tokens)
        assert torch.equal(torch.cat([mine[step][1] for mine in ranks]), targets)


def test_targets_are_the_next_bytes_of_the_text():
    data = torch.arange(200, dtype=torch.uint8)
    for tokens, targets in text_batches(16, 8, steps=4, data=data):
        assert tokens.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, tokens + 1)
        assert torch.equal(tokens, tokens[:, :1] + torch.arange(16))
        assert tokens.untyped_storage().data_ptr() != targets.untyped_storage().data_ptr()


def test_the_last_byte_is_reached_and_no_further():
    data = torch.arange(6, dtype=torch.uint8)
    starts = {int(start) for tokens, _ in text_batches(4, 32, steps=4, data=data) for start in tokens[:, 0]}
    assert starts == {0, 1}


def test_seeds_differ_steps_differ_and_iterating_again_does_not():
    first, other = text_batches(16, 4, steps=2, seed=0), text_batches(16, 4, steps=2, seed=1)
    assert len(first) == len(list(first)) == 2
    (a, _), (b, _) = first
    assert not torch.equal(a, b)
    assert not torch.equal(a, next(iter(other))[0])
    assert torch.equal(a, next(iter(first))[0])


def test_batches_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    list(text_batches(16, 4, steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_the_text_is_english_and_split_by_position():
    train, validation = text("train"), text("validation")
    assert len(train) + len(validation) > 300_000
    assert len(validation) / (len(train) + len(validation)) == pytest.approx(0.1, abs=1e-3)
    whole = bytes(torch.cat([train, validation]).tolist()).decode()
    assert whole.startswith('The "assert" statement')
    assert whole.count(" the ") > 1000


def test_tokens_are_utf8_bytes():
    assert tokenize("né").tolist() == [110, 195, 169]
    assert tokenize("").tolist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 2, "world": 2}, "rank 2"), ({"batch": 2, "world": 3}, "without a sample"), ({"seq": 50}, "50 tokens")],
)
def test_what_cannot_be_drawn_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        text_batches(**{"seq": 4, "batch": 4, "steps": 1, "data": torch.zeros(50, dtype=torch.uint8)} | options)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="test"):
        text("test")


def test_share():
    assert [share(10, rank, 3) for rank in range(3)] == [slice(0, 4), slice(4, 7), slice(7, 10)]


def test_text_does_not_load_scikit_learn():
    code = (
        "import sys; from parallel_lab import model; model.text_batches(8, 2, 1); assert 'torch' in sys.modules;"
        "assert 'sklearn' not in sys.modules; assert 'digit_batches' in dir(model);"
        "model.digit_batches; assert 'sklearn' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
