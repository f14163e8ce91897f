"""Arguments that make no sense, and models that differ: said before the first message, by the rank that is wrong."""

import re

import pytest
import torch
import torch.distributed as dist
from small import LOSS, batches, mlp

from parallel_lab import RankFailed, launch
from parallel_lab import parameter_server as ps
from parallel_lab import synchronization as sync


def fails(error, words, ranks=3, make=mlp, lr=0.1, data=batches, **options):
    def fn():
        return ps.train(make(), data(8), torch.optim.SGD, loss=LOSS, lr=lr, **options)

    with pytest.raises(error) as raised:
        launch(fn, ranks=ranks, timeout=30)
    assert re.search(words, raised.value.report), raised.value.report
    return raised.value


def test_workers_with_other_models_are_named():
    def make():
        return mlp((5, 8 if dist.get_rank() == 2 else 7, 3))

    words = r"shape of the parameter '0.weight' is \(8, 5\) here and \(7, 5\) there"
    error = fails(RankFailed, words, ranks=4, make=make)
    assert (error.rank, error.cause) == (2, "ValueError")


BAD = [
    ({"servers": 3}, ValueError, "leaves no worker"),
    ({"servers": 0}, ValueError, "expected at least 1"),
    ({"servers": 1.0}, TypeError, "whole number"),
    ({"spares": 1, "snapshot": "x"}, ValueError, "leaves none to begin with"),
    ({"servers": 2, "spares": 1}, ValueError, "need snapshot"),
    ({"resume": True}, ValueError, "need snapshot"),
    ({"every": 0, "snapshot": "x"}, ValueError, "every=0"),
    ({"consistency": sync.Partial(3)}, ValueError, "there are 2 workers"),
    ({"consistency": sync.Synchronous}, TypeError, "expected a rule"),
    ({"lr": "0.1"}, TypeError, "expected a number, as in lr"),
    ({"momentum": -1.0}, ValueError, "Invalid momentum"),
    ({"steps": 0}, (ValueError, TypeError), "batches|steps"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=[next(iter(bad[0].items())).__repr__() for bad in BAD])
def test_arguments_that_make_no_sense(tmp_path, monkeypatch, options, error, words):
    monkeypatch.chdir(tmp_path)
    raised = fails(RankFailed, words, **options)
    kinds = error if isinstance(error, tuple) else (error,)
    assert raised.cause in [kind.__name__ for kind in kinds]


def test_a_snapshot_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    error = fails(RankFailed, "cannot be written", snapshot=tmp_path / "file" / "folder")
    assert (error.rank, error.cause) == (0, "ValueError")


def test_a_worker_without_a_sample():
    fails(RankFailed, "leaves some of 4 ranks without a sample", ranks=5, data=lambda steps: batches(2, size=3))
