"""A checkpoint and the runs that go on from it, with tensors on the CPU and on a GPU that the ranks share.

Tolerance on losses in float32 where layout or device differ: 1e-5, for sums are taken in another order. Else none.
"""

import dataclasses

import pytest
import torch

from parallel_lab import launch
from parallel_lab.hybrid import Layout, checkpoint, parallelize, train_step
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import text_batches
from parallel_lab.model.gpt import GPT

CONFIG = GPTConfig(seq=8, layers=2, heads=4, width=16)
BATCHES = list(text_batches(8, 4, 4))


def laid_out(layout, dropout=0.0, **settings):
    torch.manual_seed(7)
    return parallelize(GPT(dataclasses.replace(CONFIG, dropout=dropout)), layout, lr=0.01, **settings)


def steps(made, first, last):
    return [train_step(made, *batch).loss.item() for batch in BATCHES[first:last]]


def saved(directory, dropout=0.0):
    """A run that saves after two steps and goes on: the losses of the next two."""
    made = laid_out(Layout(pp=2, dp=2), dropout, microbatches=2, fused=True)
    steps(made, 0, 2)
    checkpoint.save(made, directory, step=2)
    return steps(made, 2, 4)


def loaded(directory, layout, dropout=0.0, **settings):
    """Another that goes on from there: whether with the same random states, its losses, and where it runs."""
    made = laid_out(layout, dropout, **settings)
    same = checkpoint.load(made, directory).same_layout
    return same, steps(made, 2, 4), made.device.type


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_run_goes_on_as_if_it_had_not_stopped(device, tmp_path):
    """Bit by bit with dropout, whose masks are drawn on the device; in another layout without, as close as sums are."""

    def fn():
        through = saved(tmp_path / "dropout", 0.2)
        again = loaded(tmp_path / "dropout", Layout(pp=2, dp=2), 0.2, microbatches=2, fused=True)
        plain = saved(tmp_path / "plain")
        return through, again, plain, loaded(tmp_path / "plain", Layout(dp=2, tp=2))

    through, again, plain, other = launch(fn, ranks=4, device=device)[0]
    assert again == (True, through, device)
    assert other == (False, pytest.approx(plain, rel=1e-5), device)


@pytest.mark.gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_from_one_device_to_the_other(first, second, tmp_path):
    through = launch(saved, tmp_path, ranks=4, device=first)[0]
    found = launch(loaded, tmp_path, Layout(pp=2, tp=2), ranks=4, device=second)[0]
    assert found == (False, pytest.approx(through, rel=1e-5), second)
