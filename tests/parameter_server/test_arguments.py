"""Arguments that make no sense, and models that differ: said before the first message, by the rank that is wrong."""

import re

import pytest
import torch
import torch.distributed as dist
from small import batches, learn, mlp, said

from parallel_lab import RankFailed, launch
from parallel_lab import parameter_server as ps
from parallel_lab.synchronization import Asynchronous, Partial, Synchronous

BAD = [  # what, the ranks that say so, the error, its words
    ({"servers": 3}, (0, 1, 2), ValueError, "leaves no worker"),
    ({"servers": 0}, (0, 1, 2), ValueError, "expected at least 1"),
    ({"servers": 1.0}, (0, 1, 2), TypeError, "whole number"),
    ({"rule": Partial(3)}, (0,), ValueError, "there are 2 workers"),
    ({"rule": Synchronous}, (0,), TypeError, "expected a rule"),
    ({"lr": "0.1"}, (0,), TypeError, "expected a number, as in lr"),
    ({"momentum": -1.0}, (0,), ValueError, "Invalid momentum"),
]


def test_arguments_that_make_no_sense():
    def fn():
        found = []
        for options, ranks, *_ in BAD:
            if dist.get_rank() in ranks:
                rule = options.get("rule", Synchronous())
                rest = {name: value for name, value in options.items() if name != "rule"}
                serve = dist.get_rank() == 0
                found.append(
                    said(ps.serve, mlp(), torch.optim.SGD, rule, **rest) if serve else said(ps.Worker, mlp(), **rest)
                )
        return found

    for rank, found in enumerate(launch(fn, ranks=3, timeout=30).results):
        expected = [(error, words) for _, ranks, error, words in BAD if rank in ranks]
        for (kind, text), (error, words) in zip(found, expected, strict=True):
            assert kind is error and re.search(words, text), text


def fails(fn, ranks, words, rank, cause="ValueError"):
    with pytest.raises(RankFailed) as raised:
        launch(fn, ranks=ranks, timeout=30)
    assert re.search(words, raised.value.report), raised.value.report
    assert (raised.value.rank, raised.value.cause) == (rank, cause)


def test_workers_with_other_models_are_named():
    def make():
        return mlp((5, 8 if dist.get_rank() == 2 else 7, 3))

    words = r"shape of the parameter '0.weight' is \(8, 5\) here and \(7, 5\) there"
    fails(lambda: learn(Synchronous(), batches(), make=make), 4, words, rank=2)


def test_a_worker_that_pulls_and_pushes_in_no_order_is_told():
    def fn():
        if dist.get_rank() == 0:
            return ps.serve(mlp(), torch.optim.SGD, Asynchronous(), lr=0.1).version
        worker = ps.Worker(mlp())
        found = [said(worker.push)]
        worker.pull()
        found += [said(worker.pull), said(worker.finish), said(worker.push, -1), said(worker.push, float("nan"))]
        worker.push()
        worker.finish()
        return [*found, said(worker.pull)]

    version, found = launch(fn, ranks=2, timeout=30).results
    twice, number = "nothing was pushed since the last pull", "expected a finite number of at least 0"
    expected = [r"push\(\) without a pull\(\) before it", twice, twice, number, number, "it has finished or left"]
    assert version == 1
    for (kind, text), words in zip(found, expected, strict=True):
        assert kind is ValueError and re.search(words, text), text
